"""Scoring architectures as mmengine loops (CR-NAS, Sec. 3)."""

from collections.abc import Mapping

from mmengine.device import is_cuda_available
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import BaseLoop, Runner

from mmcr.checks import check_integer
from mmcr.errors import UserError
from mmcr.registry import LOOPS
from mmcr.scoring.evaluator import LEAST_CALIBRATION, CandidateEvaluator
from mmcr.scoring.fingerprint import data_digest, digest, metrics_digest
from mmcr.scoring.loaders import annotations_first, build_loader, calibration_cfg
from mmcr.search import Complete, Proposal


class ArchEvalLoop(BaseLoop):
    """What scoring architectures needs: archval, calibration images, metrics.

    Args:
        runner: The runner that owns the loop.
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
        check_integer('calibration_images', calibration_images, at_least=0)
        if calibration_images and calibration_dataloader is None:
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
        calibration = None
        if calibration_images:
            calibration_dataloader = annotations_first(calibration_dataloader)
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
        self._archval, self._archval_seed = dataloader, archval_seed
        self._metrics = metrics
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
        calibration = dict(images=0)
        if images:
            calibration = dict(
                images=images,
                least=LEAST_CALIBRATION,
                seed=seed,
                data=data_digest(dataloader),
            )
        return dict(
            score=self.candidates.score,
            num_minibatches=self.candidates.num_minibatches,
            fp16=self.candidates.fp16,
            plain=self.candidates.plain,
            archval_seed=self._archval_seed,
            detector=digest(
                [self.runner.cfg.model, self.runner.cfg.get('data_preprocessor')]
            ),
            metrics=self._metrics,
            archval=dict(
                images=len(self.dataloader.dataset),
                batch_size=self.dataloader.sampler.batch_size,
                data=data_digest(self._archval),
            ),
            calibration=calibration,
        )


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
        **kwargs,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **kwargs)
        space = self.candidates.backbone.space
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
        for hook in self.runner.hooks:
            waited_for = []
            if isinstance(hook, CheckpointHook):
                waited_for = hook.save_best or []
            elif isinstance(hook, EarlyStoppingHook):
                waited_for = [hook.monitor]
            for key in waited_for:
                if key != 'auto' and key.rpartition('/')[0] not in known:
                    names = ', '.join(f'{name}/bbox_mAP' for name in known)
                    raise UserError(
                        f'{type(hook).__name__} must wait for a metric of one of '
                        f'val_cfg.archs, such as {names}, but got {key!r}. Name one '
                        f'of those, or leave it out.'
                    )

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
