"""Batch norm statistics of supernet paths, from scratch (SPOS, DetNAS).

A supernet's running statistics mix all the paths that were trained, so each path gets
its own: the average, over a fixed set of training images, of what its norms see in
training mode.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from types import MethodType

import torch
from mmengine.dist import all_reduce_dict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.models.norms import learns_statistics
from mmcr.scoring.paths import Prefix, prefixes_of, run_paths
from mmcr.space.arch import Arch


class BNCalibrator:
    """Means and variances of the norms of every path prefix.

    What a prefix has seen is kept: later architectures that begin alike do not see
    those batches again, and a longer calibration goes on from a shorter one. Norms that
    are frozen (`norm_eval`, frozen stages) keep their stored statistics, on which the
    supernet was trained. Norms of neck and heads form one more step after the
    backbone's, which every architecture has to itself.

    Args:
        backbone: A supernet whose weights stay as they are. Mode and buffers are
            changed; the caller gives them back (`paths.untouched`).
        head_norms: The norms of neck and heads to re-estimate, likewise changed.
        keep_bytes: Memory above which prefixes that are not asked for any more are
            forgotten.
        adapt: Whether to re-estimate at all; otherwise every path runs on the
            statistics that the supernet's training left.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head_norms: Sequence[nn.Module] = (),
        keep_bytes: int = 2**28,
        adapt: bool = True,
    ) -> None:
        self.backbone = backbone
        self.head_norms = list(head_norms) if adapt else []
        self.keep_bytes = keep_bytes
        backbone.train()
        norms = filter(learns_statistics, backbone.modules())
        self._adapting = set(norms) if adapt else set()
        self._depth = len(backbone.steps())
        # per prefix how many of the first batches of all ranks it saw, and this rank's
        # sums over images, of the means and then the variances of the norms of its
        # step, and last the number of images
        self._seen: dict[Prefix, tuple[int, Tensor]] = {}
        self._statistics: dict[Prefix, Tensor] = {}

    @property
    def needed(self) -> bool:
        """Whether there is a norm to calibrate at all."""
        return bool(self._adapting or self.head_norms)

    def missing(self, archs: Sequence[Arch], num_batches: int) -> range:
        """Which of the first `num_batches` batches some prefix of `archs` lacks."""
        if not self.needed:
            return range(0)
        seen = (self._num_seen(arch, num_batches) for arch in archs)
        return range(min(seen, default=num_batches), num_batches)

    @torch.no_grad()
    def calibrate(
        self,
        archs: Sequence[Arch],
        batches: Iterable[tuple[int, dict]],
        num_batches: int,
        run_heads: Callable[[int, dict, tuple[Tensor, ...]], None] | None = None,
    ) -> None:
        """Estimates the statistics of all prefixes of `archs`.

        Every image counts the same, whatever its batch. Each rank gives its own share
        of the batches, and all get the statistics of the whole.

        Args:
            archs: Complete members of the backbone's space.
            batches: Index and preprocessed data, ``inputs`` of ``N x C x H x W``, of
                the batches that are `missing`, in order.
            num_batches: How many batches the statistics are to rest on.
            run_heads: Runs neck and heads, given a batch and the backbone's outputs
                for it; where there are `head_norms`.
        """
        self.backbone.eval()  # stochastic depth would draw anew each time
        for norm in self._adapting.union(self.head_norms):
            norm.train()
        if not archs or not self.needed:
            return
        seen_by = {arch: self._num_seen(arch, num_batches) for arch in archs}
        taken = self._take(archs, num_batches)

        def measure(prefix: Prefix, norms: list, images: int, run: Callable):
            for norm in norms:
                norm.reset_running_stats()
                # the running value becomes the batch's own; the mean of all calls of
                # a head that is run on each level (which a GPU waits for)
                norm.momentum = None if norms is self.head_norms else 1.0
            result = run()
            num_seen, sums = taken[prefix]
            if index >= num_seen:
                means = [norm.running_mean for norm in norms]
                variances = [norm.running_var for norm in norms]
                # float64 makes the sum independent of the order of the batches
                seen = torch.cat([*means, *variances, sums.new_ones(1)]).double()
                sums += seen * images
            return result

        def run_step(prefix: Prefix, step, x: Tensor) -> Tensor:
            return measure(prefix, self._norms_of(step), len(x), partial(step.run, x))

        with _unsynchronised(self._adapting.union(self.head_norms)):
            for index, data in batches:
                images = data['inputs']
                todo = [arch for arch in archs if seen_by[arch] <= index]
                for members, features in run_paths(
                    self.backbone, todo, images, run_step
                ):
                    if self.head_norms:
                        prefix = self._prefixes(todo[members[0]])[-1]
                        run = partial(run_heads, index, data, features)
                        measure(prefix, self.head_norms, len(images), run)
        totals = {prefix: sums for prefix, (_, sums) in taken.items()}
        self._seen.update({prefix: (num_batches, totals[prefix]) for prefix in taken})
        all_reduce_dict(totals)
        self._statistics = {
            prefix: (total[:-1] / total[-1]).float() for prefix, total in totals.items()
        }

    def run_calibrated(self, prefix: Prefix, step, x: Tensor) -> Tensor:
        """Runs a step with the statistics of its prefix, in evaluation mode."""
        self._load(prefix, self._norms_of(step))
        return step.run(x)

    def load_heads(self, arch: Arch) -> None:
        """Gives neck and heads the statistics of an architecture."""
        self._load(self._prefixes(arch)[-1], self.head_norms)

    def load(self, arch: Arch) -> None:
        """Gives all norms of a path, of neck and heads too, its statistics."""
        self.backbone.set_arch(arch)
        for prefix, step in zip(self._prefixes(arch), self.backbone.steps()):
            self._load(prefix, self._norms_of(step))
        self.load_heads(arch)

    def _load(self, prefix: Prefix, norms: list[nn.Module]) -> None:
        if norms:
            values = self._statistics[prefix].split([n.num_features for n in norms] * 2)
            for norm, mean, var in zip(norms, values, values[len(norms) :]):
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(var)

    def _prefixes(self, arch: Arch) -> list[Prefix]:
        """Of the backbone's steps and, with norms there, of neck and heads."""
        prefixes = prefixes_of(self.backbone, arch)
        if self.head_norms:
            prefixes.append((self._depth, prefixes[-1][1]))
        return prefixes

    def _norms_of(self, step) -> list[nn.Module]:
        return [n for n in self.backbone.active_norms(step) if n in self._adapting]

    def _take(
        self, archs: Sequence[Arch], num_batches: int
    ) -> dict[Prefix, tuple[int, Tensor]]:
        """Takes what the prefixes of `archs` saw; forgets the others where too large.

        Until it is put back: what an error cuts off is no sum to go on from.
        """
        held = sum(sums.nbytes for _, sums in self._seen.values())
        taken, steps = {}, self.backbone.steps()
        like = next(self.backbone.parameters())
        for arch in archs:
            self.backbone.set_arch(arch)
            for prefix, step in zip_longest(self._prefixes(arch), steps):
                if prefix in taken:
                    continue
                seen = self._seen.pop(prefix, None)
                # sums do not shrink: what saw more than is asked for starts anew
                if seen is None or seen[0] > num_batches:
                    norms = self.head_norms if step is None else self._norms_of(step)
                    size = sum(2 * norm.num_features for norm in norms) + 1
                    seen = 0, like.new_zeros(size, dtype=torch.float64)
                taken[prefix] = seen
        if held > self.keep_bytes:
            self._seen.clear()
        return taken

    def _num_seen(self, arch: Arch, num_batches: int) -> int:
        seen = (self._seen.get(prefix, (0,))[0] for prefix in self._prefixes(arch))
        return min(count if count <= num_batches else 0 for count in seen)


@contextmanager
def _unsynchronised(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Norms keep to their own batch, also those that are SyncBN.

    The ranks have different batches and may have unequally many of them:
    waiting for each other would mix them up, and never end.
    """
    for norm in norms:
        norm.forward = MethodType(_BatchNorm.forward, norm)
        norm._check_input_dim = lambda x: None  # which mmcv's kind does not have
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward, norm._check_input_dim
