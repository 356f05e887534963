"""How many candidates may be under way at once."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import inf

import torch
from mmengine.dist import all_reduce

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.scoring.metric_pool import result_bytes
from mmcr.search.candidate import Proposal

# Of one image's detections, until some have been seen: masks are the largest.
BYTES_PER_IMAGE = 100 * 1024


class Grouping:
    """Cuts proposals into groups whose detections fit the memory.

    Args:
        group_size: How many candidates may be under way at once.
        memory: GiB of host memory that the detections of these may take.
        workers: Processes that compute metrics while the next candidates run.
        num_images: Of archval.

    Raises:
        UserError: A limit is no number, or too low.

    Attributes:
        overlap: Whether a group may run while another one is scored.
    """

    def __init__(
        self, group_size: int, memory: float, workers: int, num_images: int
    ) -> None:
        check_integer('group_size', group_size)
        check_integer('workers', workers, at_least=0)
        if not isinstance(memory, int | float) or not 0 < memory < inf:
            raise UserError(f'memory must be a number above 0, but got {memory!r}.')
        self.overlap = bool(workers) and group_size > 1
        # while some are scored others run: together they are one group
        shares = 2 if self.overlap else 1
        self.size = group_size // shares
        # the rest is for what detections of unequal size take beyond the estimate
        self.bytes = 0.8 * memory * 2**30 / shares
        self.num_images = num_images
        self.bytes_per_image = 0.0  # at most, of those seen

    def groups(
        self,
        proposals: Sequence[Proposal],
        names: Sequence[str],
        num_calibration: Callable[[Proposal], int],
    ) -> Iterator[list[Proposal]]:
        """Neighbours share beginnings, and all of a group the calibration.

        Args:
            proposals: What is to be scored.
            names: Of the choices, in the order in which paths run.
            num_calibration: How much calibration a proposal has.
        """

        def decided(proposal: Proposal) -> list:
            arch = proposal.candidate.arch
            values = [arch[name] for name in names if name in arch]
            return [num_calibration(proposal), values]

        todo = sorted(proposals, key=decided)
        for _, alike in groupby(todo, num_calibration):
            alike = list(alike)
            while alike:
                size = self._fitting(alike)
                yield alike[:size]
                alike = alike[size:]

    def _fitting(self, proposals: list[Proposal]) -> int:
        """How many of them may form the next group; one at least."""
        each = self.bytes_per_image or BYTES_PER_IMAGE
        free = self.bytes
        for size, proposal in enumerate(proposals[: self.size]):
            free -= each * proposal.width * self.num_images
            if size and free < 0:
                return size
        return min(len(proposals), self.size)

    def measure(self, proposals: list[Proposal], results: list[list]) -> None:
        """Learns how much memory the detections of an image take.

        Args:
            proposals: Of a group.
            results: Of each, and per metric, (batch, detections) of this rank.
        """
        largest = max(
            result_bytes([[r for _, found in part for r in found] for part in parts])
            / (proposal.width * self.num_images)
            for proposal, parts in zip(proposals, results)
        )
        size = torch.tensor([largest], dtype=torch.float64)
        all_reduce(size, 'sum')  # each rank has its share of the images
        self.bytes_per_image = max(self.bytes_per_image, size.item())
