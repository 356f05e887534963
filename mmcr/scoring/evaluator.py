"""Scores many candidates in one pass over archval (CR-NAS, Sec. 3.2 and 3.3)."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import chain, groupby
from math import ceil
from operator import itemgetter

import numpy as np
import torch
from mmengine.device import is_cuda_available
from mmengine.dist import all_gather_object, gather_object, get_dist_info
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmcr.checks import check_integer, check_kind
from mmcr.errors import UserError
from mmcr.logs import quiet
from mmcr.models.detector import backbone_returns, find_backbone, unwrapped
from mmcr.models.weights.inherit import path_state_dict
from mmcr.scoring.bn_calibrator import BNCalibrator
from mmcr.scoring.bootstrap import draws
from mmcr.scoring.coco_metric import UnroundedCocoMetric
from mmcr.scoring.fast_paths import fast_paths
from mmcr.scoring.neck_and_heads import neck_and_head_norms, run_neck_and_heads
from mmcr.scoring.paths import run_paths, untouched
from mmcr.search.candidate import Complete, Proposal, Trial, batches_before
from mmcr.space.arch import Arch

# Batch norms are calibrated on so many images at least, however small the part of
# archval that a candidate is scored on.
LEAST_CALIBRATION = 32
#: Values whose images can be resampled.
RESAMPLED = ('bbox_mAP', 'segm_mAP')


class CandidateEvaluator:
    """Scores candidates with a detection metric.

    In a group of candidates every image is loaded once for all, and every distinct path
    prefix runs once per batch. The detector comes back as it was. Scores depend neither
    on the groups nor on the number of processes.

    A proposal's architecture may differ between mini-batches (the random completions of
    Sec. 3.3): the batches of archval form `num_minibatches` runs of equal length, and
    the metric is computed once over all detections. For a part of archval, norms are
    calibrated on as large a part of the calibration images, the first ones, but on
    `LEAST_CALIBRATION` images at least.

    Args:
        model: A detector whose backbone is a supernet, or its wrapper.
        evaluator: With mmengine metrics, their `dataset_meta` set.
        archval: Loader of the images to score on (`loaders.build_loader`).
        calibration: Loader of the training images for the batch norms; ``None`` runs
            all paths on the statistics that the supernet's training left, a mix of
            those of all paths.
        score: Name of the metric value to rank by, larger is better.
        num_minibatches: c of Sec. 3.3.
        fp16: Whether to run under autocast; on a GPU only.
        plain: Whether to compute, to the last bit, as mmdet's own test of the fixed
            network does on the same batches: without `fast_paths`.
        group_size: How many candidates share one pass over archval; a stopped search
            repeats the unfinished group.

    Raises:
        UserError: The model has no supernet backbone, a limit is too low, or fp16 is
            asked for without a GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        evaluator: Evaluator,
        archval: DataLoader,
        calibration: DataLoader | None,
        score: str = 'coco/bbox_mAP',
        num_minibatches: int = 10,
        fp16: bool = False,
        plain: bool = False,
        group_size: int = 64,
    ) -> None:
        check_integer('num_minibatches', num_minibatches)
        check_integer('group_size', group_size)
        check_kind('score', score, str)
        check_kind('plain', plain, bool)
        check_kind('fp16', fp16, bool)
        if fp16 and not is_cuda_available():
            raise UserError(
                "fp16 needs a GPU: mmcv's operators have no half precision on a CPU. "
                'Leave it out.'
            )
        self.backbone = find_backbone(model)
        self.model = unwrapped(model)
        self.evaluator = evaluator
        self.archval = archval
        self.calibration = calibration
        self.score = score
        self.num_minibatches = num_minibatches
        self.fp16 = fp16
        self.plain = plain
        self.group_size = group_size
        self._calibrator: BNCalibrator | None = None

    def reset(self) -> None:
        """To be called when the supernet's weights have changed."""
        self._calibrator = None

    def evaluate(
        self,
        proposals: Sequence[Proposal],
        progress: Callable[[float], None] = lambda done: None,
    ) -> list[Trial]:
        """As `stream`, all at once and in the order of the proposals."""
        trials = {
            trial.proposal: trial
            for trial in self.stream(list(dict.fromkeys(proposals)), progress)
        }
        return [trials[proposal] for proposal in proposals]

    def stream(
        self,
        proposals: Sequence[Proposal],
        progress: Callable[[float], None] = lambda done: None,
    ) -> Iterator[Trial]:
        """Scores the proposals, group by group; every rank gets all the scores.

        Args:
            proposals: Distinct candidates with the portion of archval to score
                each on.
            progress: Is told which part of the work is done, from 0 to 1.

        Raises:
            UserError: The metrics do not contain the value to rank by.
        """
        work = sum(p.width for p in proposals)
        done = 0.0
        for group in self._groups(proposals):
            share = sum(p.width for p in group)

            def within(part: float, done=done, share=share) -> None:
                progress((done + part * share) / work)

            yield from self._scored(group, self._run(group, within))
            done += share

    def _groups(self, proposals: Sequence[Proposal]) -> Iterator[list[Proposal]]:
        """Neighbours share beginnings, and all of a group the calibration."""
        names = [choice.name for choice in self.backbone.space.choices]

        def decided(proposal: Proposal) -> list:
            arch = proposal.candidate.arch
            values = [arch[name] for name in names if name in arch]
            return [self._num_calibration(proposal), values]

        todo = sorted(proposals, key=decided)
        for _, alike in groupby(todo, self._num_calibration):
            alike = list(alike)
            for start in range(0, len(alike), self.group_size):
                yield alike[start : start + self.group_size]

    def _num_calibration(self, proposal: Proposal) -> int:
        """How many calibration batches a proposal's norms rest on."""
        if self.calibration is None:
            return 0
        sampler = self.calibration.sampler
        least = ceil(LEAST_CALIBRATION / sampler.batch_size)
        part = batches_before(proposal.width, sampler.num_batches)
        return min(sampler.num_batches, max(part, least))

    @torch.no_grad()
    def _run(
        self, proposals: list[Proposal], progress: Callable[[float], None]
    ) -> list[list]:
        """Per proposal and metric, (batch, detections) of this rank's batches."""
        plan = self._plan(proposals)
        archs = list(dict.fromkeys(arch for runs in plan.values() for arch in runs))
        num_batches = self._num_calibration(proposals[0])
        with self._calibrated(archs, num_batches, progress, len(plan)) as done:
            return self._predict(
                plan,
                len(proposals),
                lambda j: progress((done + j) / (done + len(plan))),
            )

    @torch.no_grad()
    def path_weights(self, arch: Arch) -> dict[str, Tensor]:
        """The weights of one path's detector, with the norms that it is scored with.

        On the CPU, named as in the detector whose backbone is the fixed network.

        Raises:
            ArchError: It is no complete member of the space.
        """
        self.backbone.space.validate(arch)
        num_batches = self._num_calibration(Proposal(Complete(arch)))
        with self._calibrated([arch], num_batches):
            self._calibrator.load(arch)
            path, prefix = path_state_dict(self.backbone, arch), 'backbone.'
            weights = {f'{prefix}{name}': weight for name, weight in path.items()}
            for name, weight in self.model.state_dict().items():
                if not name.startswith(prefix):
                    weights[name] = weight
            return {
                name: weight.cpu().clone(memory_format=torch.contiguous_format)
                for name, weight in weights.items()
            }

    @contextmanager
    def _calibrated(
        self,
        archs: list[Arch],
        num_batches: int,
        progress: Callable[[float], None] = lambda part: None,
        later: int = 0,
    ) -> Iterator[int]:
        """Evaluation mode, with statistics for `archs`; yields how many batches it ran.

        `progress` is told which part is done of these and of as many `later` ones.
        """
        on_cpu = next(self.model.parameters()).device.type == 'cpu'
        with (
            untouched(self.model, self.backbone),
            fast_paths(self.model) if on_cpu and not self.plain else nullcontext(),
            autocast(enabled=self.fp16),
        ):
            self.model.train()
            head_norms = neck_and_head_norms(self.model, self.backbone)
            self.model.eval()  # but for what is calibrated
            if self._calibrator is None:
                self._calibrator = BNCalibrator(
                    self.backbone, head_norms, adapt=self.calibration is not None
                )
            missing = self._calibrator.missing(archs, num_batches)
            total = len(missing) + later
            if self.calibration is not None:
                batches = self._batches(
                    self.calibration, missing, lambda j: progress(j / total)
                )
                self._calibrator.calibrate(
                    archs, batches, num_batches, partial(run_neck_and_heads, self.model)
                )
            self.model.eval()
            yield len(missing)

    def _plan(self, proposals: list[Proposal]) -> dict[int, dict[Arch, list[int]]]:
        """By batch of archval: what runs on it, and for which proposals."""
        num_batches = self.archval.sampler.num_batches
        minibatches = min(self.num_minibatches, num_batches)
        plan: dict[int, dict[Arch, list[int]]] = {}
        for i, proposal in enumerate(proposals):
            start, stop = proposal.portion
            own = range(*(batches_before(end, num_batches) for end in (start, stop)))
            if not own:
                raise UserError(
                    f'A candidate needs a batch of archval at least, but its '
                    f'{num_batches} batches have none in the part from {start:g} to '
                    f'{stop:g}. Use smaller batches, more images or fewer slices.'
                )
            arch_for = cache(proposal.candidate.arch_for)
            for batch in own:
                arch = arch_for(batch * minibatches // num_batches)
                plan.setdefault(batch, {}).setdefault(arch, []).append(i)
        return dict(sorted(plan.items()))

    def _batches(
        self,
        loader: DataLoader,
        chosen: Collection[int],
        progress: Callable[[int], None],
    ) -> Iterator[tuple[int, dict]]:
        """This rank's share of the chosen batches, preprocessed, with their index."""
        with loader.sampler.only(chosen):
            own = loader.sampler.batches
            # without any, workers that load would be started for nothing
            for done, (batch, data) in enumerate(zip(own, loader if own else ())):
                progress(done * get_dist_info()[1])
                yield batch, self.model.data_preprocessor(data, False)

    def _predict(
        self,
        plan: dict[int, dict[Arch, list[int]]],
        num_proposals: int,
        progress: Callable[[int], None],
    ) -> list[list]:
        metrics = self.evaluator.metrics
        results = [[[] for _ in metrics] for _ in range(num_proposals)]
        for batch, data in self._batches(self.archval, plan, progress):
            archs = list(plan[batch])
            for members, features in run_paths(
                self.backbone, archs, data['inputs'], self._calibrator.run_calibrated
            ):
                self._calibrator.load_heads(archs[members[0]])
                with backbone_returns(self.model, features):
                    samples = self.model(**data, mode='predict')
                for metric in metrics:
                    metric.results = []
                self.evaluator.process(data_samples=samples, data_batch=data)
                for member in members:
                    for i in plan[batch][archs[member]]:
                        for found, metric in zip(results[i], metrics):
                            found.append((batch, metric.results))
        for metric in metrics:
            metric.results = []
        return results

    def _scored(
        self, proposals: list[Proposal], results: list[list]
    ) -> Iterator[Trial]:
        """Computes the metrics."""
        values = _shared(results, partial(compute, self.evaluator.metrics))
        failed = []
        for i, proposal in enumerate(proposals):
            try:
                if isinstance(values[i], Exception):
                    raise values[i]
                trial = Trial(proposal, self.score_of(values[i]), values[i])
            except Exception as error:  # raised when the others are kept
                failed.append(error)
            else:
                yield trial
        if failed:
            raise failed[0]

    def resampled(
        self, archs: Sequence[Arch], resamples: int = 200, seed: int = 0
    ) -> np.ndarray:
        """AP on all of archval and on as many images drawn from it with replacement.

        Where the score is mAP of `UnroundedCocoMetric`. The draws are the same for
        all: a difference of two architectures within a column is a paired one.

        Args:
            archs: Complete ones.
            resamples: How many.
            seed: Of the draws.

        Returns:
            From 0 to 1, of shape ``archs x (1 + resamples)``; the first column is of
            archval as it is.

        Raises:
            UserError: The score is another value.
        """
        name = self.score.rpartition('/')[2]
        places = [
            i
            for i, metric in enumerate(self.evaluator.metrics)
            if isinstance(metric, UnroundedCocoMetric)
        ]
        if len(places) != 1 or name not in RESAMPLED:
            raise UserError(
                f'Images are resampled for mAP of one mmcr.UnroundedCocoMetric, but '
                f'the score is {self.score}.'
            )
        (place,), kind = places, name.removesuffix('_mAP')
        images = len(self.archval.dataset)
        drawn = np.vstack([np.ones((1, images)), draws(images, resamples, seed)])
        metric = self.evaluator.metrics[place]

        def of_one(results: list[list]) -> np.ndarray:
            with _quiet():
                return metric.resampled(results[place], kind, drawn)

        values = {}
        for group in self._groups([Proposal(Complete(arch)) for arch in archs]):
            found = self._run(group, lambda part: None)
            for proposal, value in zip(group, _shared(found, of_one).values()):
                if isinstance(value, Exception):
                    raise value
                values[proposal.candidate.arch] = value
        return np.array([values[arch] for arch in archs])

    def score_of(self, values: dict[str, float]) -> float:
        """The value to rank by; a UserError where the metrics do not contain it."""
        if self.score not in values:
            raise UserError(
                f'score must name a value of the metrics, one of {sorted(values)}, '
                f'but got {self.score!r}.'
            )
        return values[self.score]


def _shared(results: list[list], of_one: Callable[[list], object]) -> dict[int, object]:
    """By proposal, what is made of its results, or the exception that this raised.

    Each is made on one rank; every rank gets all. `results` is emptied.
    """
    rank, world_size = get_dist_info()
    for i, found in enumerate(results):
        results[i] = gather_object(found, i % world_size)
    own = {}
    for i in range(rank, len(results), world_size):
        try:
            own[i] = of_one(_in_order(results[i]))
        except Exception as error:  # to be raised on every rank
            own[i] = error
    results.clear()
    values = {i: v for part in all_gather_object(own) for i, v in part.items()}
    return dict(sorted(values.items()))


def compute(metrics: Sequence[BaseMetric], results: Sequence[list]) -> dict[str, float]:
    """The values of metrics, named as mmengine's evaluator names them.

    Args:
        metrics: Their `dataset_meta` set.
        results: Of each, what its `process` made of the images, in their order.
    """
    values = {}
    for metric, own in zip(metrics, results):
        with _quiet():
            computed = metric.compute_metrics(own)
        metric.results = []
        prefix = f'{metric.prefix}/' if metric.prefix else ''
        values.update({prefix + name: value for name, value in computed.items()})
    return values


def _quiet() -> AbstractContextManager:
    """Keeps metrics from logging a table per candidate."""
    return quiet(MMLogger.get_current_instance(), logging.WARNING)


def _in_order(parts: list[list]) -> list[list]:
    """Of each metric the results of all ranks, in the order of the batches."""
    ordered = []
    for of_ranks in zip(*parts):
        batches = sorted(chain(*of_ranks), key=itemgetter(0))
        ordered.append([result for _, batch in batches for result in batch])
    return ordered
