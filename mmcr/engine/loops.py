"""The search and archval validation as mmengine loops (CR-NAS, Sec. 3)."""

import hashlib
import json
import os
from collections.abc import Mapping

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, Runner

from mmcr.engine.batches import build_loader, calibration_cfg
from mmcr.engine.checkpoint import check_supernet_checkpoint, file_digest
from mmcr.engine.evaluator import CandidateEvaluator
from mmcr.engine.export import write_best
from mmcr.engine.progress import SearchProgress
from mmcr.errors import UserError
from mmcr.registry import LOOPS, SEARCHERS
from mmcr.search import (
    Complete,
    ExhaustiveSearcher,
    GreedySearcher,
    Journal,
    Proposal,
    Trial,
    run_search,
)
from mmcr.space import Arch, Budget

SEARCHERS.register_module(module=ExhaustiveSearcher)
SEARCHERS.register_module(module=GreedySearcher)


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
        score: Name of the metric value to rank by.
        num_minibatches: c of Sec. 3.3.
        fp16: Whether to run under autocast.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        calibration_dataloader: dict | None = None,
        calibration_images: int = 200,
        calibration_seed: int = 0,
        score: str = 'coco/bbox_mAP',
        num_minibatches: int = 10,
        fp16: bool = False,
    ) -> None:
        if calibration_dataloader is None:
            calibration_dataloader = calibration_cfg(
                runner.cfg.get('train_dataloader'), dataloader
            )
        archval = build_loader(dataloader, 'archval')
        super().__init__(runner, archval)
        metrics = _metrics_digest(evaluator)
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
            runner.model, evaluator, archval, calibration, score, num_minibatches, fp16
        )
        self._options = dict(score=score, num_minibatches=num_minibatches, fp16=fp16)
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
            detector=_digest(self.runner.cfg.model),
            metrics=self._metrics,
            archval=_data_digest(self._archval),
            calibration=dict(images=images, seed=seed, data=_data_digest(dataloader)),
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
    """Searches the supernet's space under a budget.

    Used as ``test_cfg``, so that it needs no optimizer. In the work dir it
    keeps the journal ``trials.jsonl``, from which a stopped search goes on, and
    at the end writes ``best_arch.json`` and ``best_arch.py``.

    Args:
        searcher: Config of the search method; it is given the space.
        budget: Cost of the networks to find, in blocks (N of Sec. 3.2);
            ``None`` where choices cost nothing.
        group_size: How many candidates share one pass over archval. A stopped
            search repeats the unfinished group.
        final_backbone: Backbone arguments that the found network gets in the
            place of the supernet's (usually its full width).

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
        budget: int | None = None,
        group_size: int = 64,
        final_backbone: Mapping | None = None,
        **kwargs,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **kwargs)
        # now: the runner loads whatever it finds before it runs the loop
        check_supernet_checkpoint(self.candidates.model, runner._load_from)
        space = self.candidates.backbone.space
        if budget is not None:
            space = space.under(Budget.exactly(budget))
        self.searcher = SEARCHERS.build(dict(searcher, space=space))
        self.group_size = group_size
        self.final_backbone = dict(final_backbone or {})

    def run(self) -> dict:
        """Searches; returns the metrics of the best architecture."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        known = self._known_scores()
        progress = SearchProgress(self.searcher.total, len(known))
        if known:
            self.runner.logger.info(
                f'The journal holds {len(known)} of {self.searcher.total} trials: '
                f'going on from there.'
            )

        def evaluate(proposals: list[Proposal]) -> list[Trial]:
            trials = self.candidates.evaluate(
                proposals, lambda done: progress.within_group(len(proposals), done)
            )
            progress.finished(len(proposals))
            return trials

        best = run_search(self.searcher, evaluate, known, self._record, self.group_size)
        if is_main_process():
            self._export(best)
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

    def _export(self, best: Trial) -> None:
        arch = best.proposal.candidate.arch
        backbone = {**self.candidates.backbone.arch_cfg(arch), **self.final_backbone}
        write_best(self.runner.work_dir, best, backbone)
        self.runner.logger.info(
            f'Best architecture: {arch} with {self.candidates.score} {best.score:.4f}, '
            f'written to {self.runner.work_dir}/best_arch.py'
        )


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


def _digest(options: Mapping | list) -> str:
    text = json.dumps(options, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _data_digest(dataloader: Mapping) -> str:
    """Of what decides the batches, wherever it lies: annotations and options."""
    dataset = dict(dataloader['dataset'])
    root, ann_file = dataset.pop('data_root', None), dataset.pop('ann_file', None)
    path = os.path.join(root or '', ann_file or '')
    return _digest(
        dict(
            dataset=dataset,
            batch_size=dataloader.get('batch_size', 1),
            # of a remote file the name must do
            annotations=file_digest(path) if os.path.isfile(path) else ann_file,
        )
    )


def _metrics_digest(evaluator: Evaluator | dict | list) -> str | None:
    """Of the metrics' options; their annotation file is that of the data."""
    if isinstance(evaluator, Evaluator):
        return None
    metrics = [evaluator] if isinstance(evaluator, Mapping) else evaluator
    return _digest(
        [{k: v for k, v in metric.items() if k != 'ann_file'} for metric in metrics]
    )
