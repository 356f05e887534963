"""How many candidates may be under way at once."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from math import inf

import numpy as np
import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.search.candidate import Proposal

# Of one image's detections, until some have been seen: masks are the largest.
BYTES_PER_IMAGE = 100 * 1024


class Grouping:
    """Cuts proposals into groups whose detections fit the memory.

    Args:
        group_size: How many candidates may be under way at once.
        memory: GiB of host memory that the detections of these may take.
        num_images: Of archval.

    Raises:
        UserError: A limit is no number, or too low.
    """

    def __init__(self, group_size: int, memory: float, num_images: int) -> None:
        check_integer('group_size', group_size)
        if not isinstance(memory, int | float) or not 0 < memory < inf:
            raise UserError(f'memory must be a number above 0, but got {memory!r}.')
        self.size = group_size
        # the rest is for what detections of unequal size take beyond the estimate
        self.bytes = 0.8 * memory * 2**30
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


def result_bytes(results: object) -> int:
    """Host memory that results of metrics take, in bytes.

    Arrays and tensors count with the whole buffers that they look into: one
    box that a detector kept holds all the boxes that it was chosen from. What
    is there twice counts once.

    Args:
        results: Anything of containers, arrays, tensors and plain objects.
    """
    seen: set = set()
    total = 0
    waiting = [results]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or item is None or isinstance(item, (bool, type)):
            continue
        seen.add(id(item))
        # with the buffer of an array, where it is the array's own
        total += sys.getsizeof(item)
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            if item.device.type == 'cpu' and ('at', storage.data_ptr()) not in seen:
                seen.add(('at', storage.data_ptr()))
                total += storage.nbytes()
        elif isinstance(item, np.ndarray):
            waiting.append(item.base)
            if item.dtype.hasobject:
                waiting.extend(item.flat)
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
        elif not isinstance(item, (str, bytes, int, float, np.generic)):
            waiting.append(getattr(item, '__dict__', None))
    return total
