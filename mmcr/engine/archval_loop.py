"""Scoring architectures as mmengine loops (CR-NAS, Sec. 3)."""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import BaseLoop, Runner

from mmcr.checks import check_integer
from mmcr.engine.launch import schedulers_of
from mmcr.errors import UserError
from mmcr.registry import LOOPS
from mmcr.scoring.coco_metric import UnroundedCocoMetric
from mmcr.scoring.evaluator import LEAST_CALIBRATION, CandidateEvaluator, compute
from mmcr.scoring.fingerprint import data_digest, digest, metrics_digest
from mmcr.scoring.loaders import annotations_first, build_loader, calibration_cfg
from mmcr.search import Complete, Proposal

#: Options of an earlier version, which have no effect.
RETIRED = ('memory', 'workers')


class ArchEvalLoop(BaseLoop):
    """What scoring architectures needs: archval, calibration images, metrics.

    Args:
        runner: Owns the loop.
        dataloader: Config of archval's loader.
        evaluator: Config of the metrics, `mmcr.UnroundedCocoMetric` for COCO.
        calibration_dataloader: Config of the loader of the images that re-estimate
            the batch norms; ``None`` takes the config's training set, read like
            archval.
        calibration_images: How many of them to take; 0 runs all paths on the
            statistics that the supernet's training left, a mix of those of all paths.
        calibration_seed: Of the draw of these images.
        archval_seed: Of the order of archval's images: its parts, and with them
            mini-batches, are random samples of it.
        **options: Of `CandidateEvaluator`, from `score` on.
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
        **options,
    ) -> None:
        check_integer('calibration_images', calibration_images, at_least=0)
        check_integer('calibration_seed', calibration_seed, at_least=0)
        check_integer('archval_seed', archval_seed, at_least=0)
        options = _without_retired(options)
        archval = build_loader(dataloader, 'archval', seed=archval_seed)
        super().__init__(runner, archval)
        self._archval = dataloader
        self._settings = dict(
            metrics=metrics_digest(evaluator),
            archval_seed=archval_seed,
            calibration=dict(images=calibration_images),
        )
        if not isinstance(evaluator, Evaluator):
            evaluator = runner.build_evaluator(evaluator)
        evaluator.dataset_meta = archval.dataset.metainfo
        runner.visualizer.dataset_meta = archval.dataset.metainfo
        self.evaluator = evaluator
        self._calibration = calibration = None
        if calibration_images:
            self._settings['calibration'].update(
                least=LEAST_CALIBRATION, seed=calibration_seed
            )
            self._calibration = annotations_first(
                calibration_dataloader
                or calibration_cfg(runner.cfg.get('train_dataloader'), dataloader)
            )
            drawn = calibration_images, calibration_seed
            calibration = build_loader(self._calibration, 'the calibration set', *drawn)
        self.candidates = CandidateEvaluator(
            runner.model, evaluator, archval, calibration, **options
        )

    def fingerprint(self) -> dict:
        """All that a score depends on beside the candidate, as JSON.

        Reads whole annotation files: for those who keep scores.
        """
        calibration = dict(self._settings['calibration'])
        if self._calibration:
            calibration['data'] = data_digest(self._calibration)
        options = ('score', 'num_minibatches', 'fp16', 'plain')
        cfg = self.runner.cfg
        return dict(
            self._settings,
            **{name: getattr(self.candidates, name) for name in options},
            detector=digest([cfg.model, cfg.get('data_preprocessor')]),
            archval=dict(
                images=len(self.dataloader.dataset),
                batch_size=self.dataloader.sampler.batch_size,
                data=data_digest(self._archval),
            ),
            calibration=calibration,
        )

    def check_score(self) -> None:
        """Checks before any network runs, where the metrics are of COCO.

        Raises:
            UserError: The metrics have no such score, or archval has no object that it
                could be measured on.
        """
        metrics, dataset = self.evaluator.metrics, self.dataloader.dataset
        if not all(isinstance(metric, UnroundedCocoMetric) for metric in metrics):
            return
        nothing = dict(
            bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0), masks=[]
        )
        ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
        results = [({}, dict(nothing, img_id=i)) for i in ids]
        values = compute(metrics, [results] * len(metrics))
        if self.candidates.score_of(values) == -1:
            score = self.candidates.score
            raise UserError(
                f'score must be defined on archval, but {score} is not: '
                f'the {len(ids)} images have no object that it counts. Check their '
                f'annotations, use other images, or name another score, such as '
                f'{", ".join(name for name in sorted(values) if values[name] > -1)}.'
            )


def _without_retired(options: dict) -> dict:
    retired = [name for name in RETIRED if name in options]
    if retired and is_main_process():
        warnings.warn(
            f'{" and ".join(retired)} of test_cfg or val_cfg have no effect any more, '
            f'and the next version refuses them: leave them out. Metrics are computed '
            f'between candidates, and group_size bounds the memory of detections.',
            FutureWarning,
            stacklevel=3,
        )
    return {name: value for name, value in options.items() if name not in retired}


@LOOPS.register_module()
class ArchValLoop(ArchEvalLoop):
    """Scores a few named architectures while a supernet trains.

    Used as ``val_cfg``. The metrics are called ``archval/NAME/bbox_mAP`` and so
    on, ready for ``save_best``.

    Args:
        archs: By name, a member of the space: a mapping from choice to value, a
            list of the values in the order of the choices, or one value for all.

    Raises:
        UserError: One of them is not a member of the supernet's space, or a hook
            waits for a metric of another one.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        archs: Mapping[str, Mapping | list | int],
        **options,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **options)
        space = self.candidates.backbone.space
        if not isinstance(archs, Mapping):
            raise UserError(
                f'val_cfg.archs must be members of the space by a name, as '
                f'dict(deep=[1, 1, 4, 2]), but is {archs!r}.'
            )
        self.archs = {}
        for name, values in archs.items():
            try:
                self.archs[name] = space.member(values)
            except UserError as error:
                raise UserError(
                    f'val_cfg.archs must name members of the space, but {name} is '
                    f'none: {error}'
                ) from None
        self._check_monitors()

    def _check_monitors(self) -> None:
        """mmengine notices at the end of the first validation, hours later."""
        known = [f'archval/{name}' for name in self.archs]
        for what, key in self._monitored():
            if key != 'auto' and key.rpartition('/')[0] not in known:
                names = ', '.join(f'{name}/bbox_mAP' for name in known)
                raise UserError(
                    f'{what} must wait for a metric of one of val_cfg.archs, such as '
                    f'{names}, but got {key!r}. Name one of those, or leave it out.'
                )

    def _monitored(self) -> Iterator[tuple[str, str]]:
        """What waits for a metric, and for which."""
        for hook in self.runner.hooks:
            monitored = []
            if isinstance(hook, CheckpointHook):
                monitored = hook.save_best or []
            elif isinstance(hook, EarlyStoppingHook):
                monitored = [hook.monitor]
            for key in monitored:
                yield type(hook).__name__, key
        for each in schedulers_of(self.runner.cfg):
            if monitor := each.get('monitor'):
                yield str(each.get('type')), monitor

    def run(self) -> dict:
        """Scores them; returns the metrics."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.candidates.reset()  # training goes on between two calls
        trials = self.candidates.evaluate(
            [Proposal(Complete(arch)) for arch in self.archs.values()]
        )
        if all(trial.score == -1 for trial in trials):
            self.runner.logger.warning(
                f'{self.candidates.score} of all val_cfg.archs is -1: archval has no '
                f'object that it could be measured on. Check its annotations, and the '
                f'score of val_cfg.'
            )
        metrics = {
            f'archval/{name}/{key.split("/")[-1]}': value
            for name, trial in zip(self.archs, trials)
            for key, value in trial.metrics.items()
        }
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics
