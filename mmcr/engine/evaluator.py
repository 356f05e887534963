"""Scores many candidates in one pass over archval (CR-NAS, Sec. 3.2 and 3.3)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmcr.engine.calibration import PathNorms
from mmcr.engine.paths import find_backbone, run_paths, untouched
from mmcr.errors import UserError
from mmcr.search.candidate import Proposal, Trial
from mmcr.space.arch import Arch


class CandidateEvaluator:
    """Gives each proposal the value of a detection metric.

    Per call, every image is loaded once for all proposals, and every distinct
    path prefix runs once per batch. Batch norm statistics are estimated from
    scratch for each path. The detector comes back as it was.

    A proposal's architecture may differ between mini-batches (the random
    completions of Sec. 3.3): the batches of archval form `num_minibatches`
    runs of equal length, and the metric is computed once over the detections
    of all of them.

    Args:
        model: A detector whose backbone is a supernet, or its wrapper.
        evaluator: With mmengine metrics, their `dataset_meta` set.
        archval: Loader of the images to score on (`batches.build_loader`).
        calibration: Loader of the training images for the batch norms.
        score: Name of the metric value to rank by, larger is better.
        num_minibatches: c of Sec. 3.3.
        fp16: Whether to run under autocast.

    Raises:
        UserError: The model has no supernet backbone.
    """

    def __init__(
        self,
        model: nn.Module,
        evaluator: Evaluator,
        archval: DataLoader,
        calibration: DataLoader,
        score: str = 'coco/bbox_mAP',
        num_minibatches: int = 10,
        fp16: bool = False,
    ) -> None:
        self.backbone = find_backbone(model)
        self.model = model.module if is_model_wrapper(model) else model
        self.evaluator = evaluator
        self.archval = archval
        self.calibration = calibration
        self.score = score
        self.num_minibatches = num_minibatches
        self.fp16 = fp16

    @torch.no_grad()
    def evaluate(
        self,
        proposals: Sequence[Proposal],
        progress: Callable[[float], None] = lambda done: None,
    ) -> list[Trial]:
        """Scores the proposals, in their order; every rank gets all the scores.

        Args:
            proposals: Candidates with the portion of archval to score each on.
            progress: Is told which part of the work is done, from 0 to 1.

        Raises:
            UserError: The metrics do not contain the value to rank by.
        """
        with untouched(self.model, self.backbone), autocast(enabled=self.fp16):
            norms = PathNorms(self.backbone)
            num_batches = len(self.calibration) + len(self.archval)
            if norms.needed:
                norms.calibrate(
                    self._all_archs(proposals),
                    self._images(lambda j: progress(j / num_batches)),
                )
            self.model.eval()
            results = self._predict(
                proposals,
                norms,
                lambda j: progress((len(self.calibration) + j) / num_batches),
            )
        return self._score(proposals, results)

    def _arch(self, proposal: Proposal, batch: int) -> Arch | None:
        """What runs for `proposal` on a batch of archval; ``None``: nothing."""
        total = self.archval.sampler.num_batches
        start, stop = proposal.portion
        if not start * total <= batch < stop * total:
            return None
        minibatches = min(self.num_minibatches, total)
        return proposal.candidate.arch_for(batch * minibatches // total)

    def _all_archs(self, proposals: Sequence[Proposal]) -> list[Arch]:
        # all ranks calibrate the architectures of all batches: they share the work
        # of a batch's norms, and the prefixes of all must agree in their order
        archs = (
            self._arch(proposal, batch)
            for proposal in proposals
            for batch in range(self.archval.sampler.num_batches)
        )
        return list(dict.fromkeys(arch for arch in archs if arch is not None))

    def _images(self, progress: Callable[[int], None]) -> Iterator[Tensor]:
        for j, data in enumerate(self.calibration):
            progress(j)
            yield self.model.data_preprocessor(data, False)['inputs']

    def _predict(
        self,
        proposals: Sequence[Proposal],
        norms: PathNorms,
        progress: Callable[[int], None],
    ) -> list[list]:
        """Per proposal and metric, (batch, detections) of this rank's batches."""
        metrics = self.evaluator.metrics
        results = [[[] for _ in metrics] for _ in proposals]
        own = self.archval.sampler.batches
        for j, (batch, data) in enumerate(zip(own, self.archval)):
            progress(j)
            data = self.model.data_preprocessor(data, False)
            planned = [
                (i, arch)
                for i, proposal in enumerate(proposals)
                if (arch := self._arch(proposal, batch)) is not None
            ]
            archs = [arch for _, arch in planned]
            for members, features in run_paths(
                self.backbone, archs, data['inputs'], norms.run_calibrated
            ):
                with _backbone_returns(self.model, features):
                    samples = self.model(**data, mode='predict')
                for metric in metrics:
                    metric.results = []
                self.evaluator.process(data_samples=samples, data_batch=data)
                for member in members:
                    for found, metric in zip(results[planned[member][0]], metrics):
                        found.append((batch, metric.results))
        return results

    def _score(self, proposals: Sequence[Proposal], results: list[list]) -> list[Trial]:
        """Computes the metrics; the proposals are spread over the ranks."""
        rank, world_size = get_dist_info()
        parts = all_gather_object(results)
        own = {}
        for i in range(rank, len(proposals), world_size):
            try:
                own[i] = self._compute([part[i] for part in parts])
            except Exception as error:  # raised below, on every rank
                own[i] = error
        values = {i: v for part in all_gather_object(own) for i, v in part.items()}
        for computed in values.values():
            if isinstance(computed, Exception):
                raise computed
            if self.score not in computed:
                raise UserError(
                    f'score must name a value of the metrics, one of '
                    f'{sorted(computed)}, but got {self.score!r}.'
                )
        return [
            Trial(proposal, values[i][self.score], values[i])
            for i, proposal in enumerate(proposals)
        ]

    def _compute(self, parts: list[list]) -> dict[str, float]:
        """The metrics of one proposal from its ranks' detections."""
        values = {}
        for m, metric in enumerate(self.evaluator.metrics):
            batches = sorted(
                (found for part in parts for found in part[m]),
                key=lambda found: found[0],
            )
            with _quiet():
                computed = metric.compute_metrics(
                    [result for _, batch in batches for result in batch]
                )
            metric.results = []
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            values.update({prefix + name: value for name, value in computed.items()})
        return values


class _Given(nn.Module):
    """Stands in for a backbone that has run already."""

    def __init__(self, features: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.features


@contextmanager
def _backbone_returns(model: nn.Module, features: tuple[Tensor, ...]) -> Iterator[None]:
    backbone, model.backbone = model.backbone, _Given(features)
    try:
        yield
    finally:
        model.backbone = backbone


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps metrics from logging a table per candidate."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
