"""The search and archval validation as mmengine loops (CR-NAS, Sec. 3)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.device import is_cuda_available
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, Runner

from mmcr.engine.batches import build_loader, calibration_cfg
from mmcr.engine.budget import budget_name, budget_space
from mmcr.engine.checkpoint import check_supernet_checkpoint, file_digest
from mmcr.engine.conditions import data_digest, digest, metrics_digest
from mmcr.engine.evaluator import LEAST_CALIBRATION, CandidateEvaluator
from mmcr.engine.export import write_best
from mmcr.engine.progress import SearchProgress
from mmcr.errors import UserError
from mmcr.registry import LOOPS, SEARCHERS
from mmcr.search import (
    Complete,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    Journal,
    Proposal,
    RacingGreedySearcher,
    Trial,
    run_search,
)
from mmcr.space import Arch

for kind in (
    ExhaustiveSearcher,
    HalvingSearcher,
    GreedySearcher,
    RacingGreedySearcher,
):
    SEARCHERS.register_module(module=kind)


class _ArchEvalLoop(BaseLoop):
    """What scoring architectures needs: archval, calibration images, metrics.

    Args:
        runner: The runner that owns the loop.
        dataloader: Config of archval's loader.
        evaluator: Config of the metrics, `mmcr.UnroundedCocoMetric` for COCO.
        calibration_dataloader: Config of the loader of the images that re-estimate
            the batch norms; ``None`` takes the config's training set, read like
            archval.
        calibration_images: How many of them to take.
        calibration_seed: Of the draw of these images.
        archval_seed: Of the order of archval's images: its parts, and with them
            mini-batches, are random samples of it.
        score: Name of the metric value to rank by.
        num_minibatches: c of Sec. 3.3.
        fp16: Whether to run under autocast; on a GPU only.
        plain: Whether scores are to be those of mmdet's own test to the last bit,
            which takes longer (`CandidateEvaluator`).
        group_size: How many candidates share one pass over archval. A stopped
            search repeats the unfinished group.
        memory: GiB of host memory that the detections of a group may take; a
            group is made smaller where they would take more.
        workers: Processes that compute metrics while the next candidates run.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        calibration_dataloader: dict | None = None,
        calibration_images: int = 200,
        calibration_seed: int = 0,
        archval_seed: int = 0,
        score: str = 'coco/bbox_mAP',
        num_minibatches: int = 10,
        fp16: bool = False,
        plain: bool = False,
        group_size: int = 64,
        memory: float = 2.0,
        workers: int = 0,
    ) -> None:
        if fp16 and not is_cuda_available():
            raise UserError(
                "fp16 needs a GPU: mmcv's operators have no half precision on a CPU. "
                'Leave it out.'
            )
        if calibration_dataloader is None:
            calibration_dataloader = calibration_cfg(
                runner.cfg.get('train_dataloader'), dataloader
            )
        archval = build_loader(dataloader, 'archval', seed=archval_seed)
        super().__init__(runner, archval)
        metrics = metrics_digest(evaluator)
        if not isinstance(evaluator, Evaluator):
            evaluator = runner.build_evaluator(evaluator)
        evaluator.dataset_meta = archval.dataset.metainfo
        runner.visualizer.dataset_meta = archval.dataset.metainfo
        self.evaluator = evaluator
        calibration = build_loader(
            calibration_dataloader,
            'the calibration set',
            calibration_images,
            calibration_seed,
        )
        self.candidates = CandidateEvaluator(
            runner.model,
            evaluator,
            archval,
            calibration,
            score=score,
            num_minibatches=num_minibatches,
            fp16=fp16,
            plain=plain,
            group_size=group_size,
            memory=memory,
            workers=workers,
        )
        self._options = dict(
            score=score,
            num_minibatches=num_minibatches,
            fp16=fp16,
            plain=plain,
            archval_seed=archval_seed,
        )
        self._archval, self._metrics = dataloader, metrics
        self._calibration = (
            calibration_images,
            calibration_seed,
            calibration_dataloader,
        )

    def conditions(self) -> dict:
        """All that a score depends on beside the candidate, as JSON.

        Reads whole annotation files: for those who keep scores.
        """
        images, seed, dataloader = self._calibration
        return dict(
            **self._options,
            detector=digest(self.runner.cfg.model),
            metrics=self._metrics,
            archval=dict(
                images=len(self.dataloader.dataset),
                batch_size=self.dataloader.sampler.batch_size,
                data=data_digest(self._archval),
            ),
            calibration=dict(
                images=images,
                least=LEAST_CALIBRATION,
                seed=seed,
                data=data_digest(dataloader),
            ),
        )


@LOOPS.register_module()
class ArchValLoop(_ArchEvalLoop):
    """Scores a few named architectures while a supernet trains.

    Used as ``val_cfg``. The metrics are called ``archval/NAME/bbox_mAP`` and so
    on, ready for ``save_best``.

    Args:
        archs: By name, a member of the space: a mapping from choice to value, a
            list of the values in the order of the choices, or one value for all.

    Raises:
        ArchError: One of them is not a member of the supernet's space.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        archs: Mapping[str, Mapping | list | int],
        **kwargs,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **kwargs)
        names = [choice.name for choice in self.candidates.backbone.space.choices]
        self.archs = {name: _arch(values, names) for name, values in archs.items()}
        for arch in self.archs.values():
            self.candidates.backbone.space.validate(arch)

    def run(self) -> dict:
        """Scores them; returns the metrics."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.candidates.reset()  # training goes on between two calls
        trials = self.candidates.evaluate(
            [Proposal(Complete(arch)) for arch in self.archs.values()]
        )
        metrics = {}
        for name, trial in zip(self.archs, trials):
            metrics.update(
                {
                    f'archval/{name}/{key.split("/")[-1]}': value
                    for key, value in trial.metrics.items()
                }
            )
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics


@LOOPS.register_module()
class ArchSearchLoop(_ArchEvalLoop):
    """Searches the supernet's space under one budget or several.

    Used as ``test_cfg``, so that it needs no optimizer. In the work dir it
    keeps the journal ``trials.jsonl``, from which a stopped search goes on, and
    at the end writes ``best_arch.json`` and ``best_arch.py``; with a list of
    budgets those of each into a folder of its name, such as ``budget_16``.

    Args:
        searcher: Config of the search method; it is given the space.
        budget: What the networks to find may cost: a number of blocks (N of
            Sec. 3.2) or a limit of another kind (`engine.budget`), or a list of
            such: all are searched together, so that what they share is scored
            once. ``None`` where choices cost nothing.
        final_backbone: Backbone arguments that the found network gets in the
            place of the supernet's (usually its full width).
        workers: Processes that compute metrics while the next candidates run; in a
            search of few images 0 is faster, since a process takes seconds to start.

    Raises:
        CheckpointError: The checkpoint is not one of this supernet.
        BudgetError: No architecture meets the budget.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        searcher: dict,
        budget: int | float | Mapping | list | None = None,
        final_backbone: Mapping | None = None,
        workers: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, workers=workers, **kwargs)
        # now: the runner loads whatever it finds before it runs the loop
        check_supernet_checkpoint(self.candidates.model, runner._load_from)
        self.final_backbone = dict(final_backbone or {})
        if isinstance(budget, list):
            names = [f'budget_{budget_name(each)}' for each in budget]
            if len(set(names)) < len(names):
                raise UserError(
                    f'The budgets of a list need names of their own, for the folders '
                    f'of the results, but those of {budget} are {", ".join(names)}. '
                    f'Leave out equal ones; give latency tables file names that differ.'
                )
            self.searcher = JointSearcher(
                {
                    name: self._searcher(searcher, each)
                    for name, each in zip(names, budget)
                }
            )
        else:
            self.searcher = self._searcher(searcher, budget)

    def _searcher(self, searcher: dict, budget: int | float | Mapping | None):
        backbone = self.candidates.backbone
        space = backbone.space
        if budget is not None:
            space = budget_space(backbone, self.final_backbone, budget)
        return SEARCHERS.build(dict(searcher, space=space))

    def run(self) -> dict:
        """Searches; returns the metrics of the best architecture."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        known = self._known_scores()
        progress = SearchProgress(self.searcher.work, _work_of(known))
        if known:
            self.runner.logger.info(
                f'The journal holds {len(known)} trials: going on from there.'
            )

        def evaluate(proposals: list[Proposal]) -> Iterator[Trial]:
            work = sum(proposal.width for proposal in proposals)
            yield from self.candidates.stream(
                proposals, lambda part: progress.scoring(part * work)
            )
            progress.finished(work)

        try:
            best = run_search(self.searcher, evaluate, known, self._record)
        finally:
            self.candidates.close()
        if is_main_process():
            self._export()
        metrics = dict(best.metrics)
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _known_scores(self) -> dict:
        """What the journal holds, on every rank; only the main process opens it."""
        shared: list = [None]
        if is_main_process():
            try:
                header = dict(
                    space=self.searcher.space.to_json(),
                    searcher=self.searcher.to_json(),
                    checkpoint=file_digest(self.runner._load_from),
                    **self.conditions(),
                )
                self.journal = Journal(f'{self.runner.work_dir}/trials.jsonl', header)
                shared = [self.journal.scores]
            except UserError as error:  # the other ranks are waiting
                shared = [error]
            except OSError as error:
                shared = [
                    UserError(
                        f'The journal must be written to the work dir, but '
                        f'that fails: {error}'
                    )
                ]
        broadcast_object_list(shared)
        if isinstance(shared[0], UserError):
            raise shared[0]
        return shared[0]

    def _record(self, trial: Trial) -> None:
        if is_main_process():
            self.journal.append(trial)

    def _export(self) -> None:
        if isinstance(self.searcher, JointSearcher):
            found = self.searcher.bests()
        else:
            found = {'': self.searcher.best()}
        for name, best in found.items():
            folder = Path(self.runner.work_dir, name)
            arch = best.proposal.candidate.arch
            backbone = {
                **self.candidates.backbone.arch_cfg(arch),
                **self.final_backbone,
            }
            write_best(folder, best, backbone)
            self.runner.logger.info(
                f'Best architecture: {arch} with {self.candidates.score} '
                f'{best.score:.4f}, written to {folder}/best_arch.py'
            )


def _work_of(known: Mapping[str, dict]) -> float:
    """Of the trials that a journal holds, in candidates scored on all of archval."""
    portions = (json.loads(key)[1] for key in known)
    return sum(stop - start for start, stop in portions)


def _arch(values: Mapping | list | int, names: list[str]) -> Arch:
    if isinstance(values, int):
        return Arch(dict.fromkeys(names, values))
    if isinstance(values, Mapping):
        return Arch(values)
    if len(values) != len(names):
        raise UserError(
            f'A list in archs must hold one value for each of the choices '
            f'{names}, but got {list(values)}.'
        )
    return Arch(dict(zip(names, values)))
