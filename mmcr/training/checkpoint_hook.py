"""Checkpoints of a training: written whole."""

from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmcr.models.weights.checkpoint import write_checkpoint
from mmcr.registry import HOOKS


@register_backend('whole_files', force=True)
class WholeFiles(LocalBackend):
    """mmengine's local files, the whole of each or nothing."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(Path(filepath), obj)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`; a run that is killed leaves a whole checkpoint.

    Takes its arguments. A checkpoint, and ``last_checkpoint``, are renamed into their
    places; what ``max_keep_ckpts`` drops is removed afterwards.

    Raises:
        UserError: A checkpoint cannot be written.
    """

    def before_train(self, runner: Runner) -> None:
        out_dir = self.out_dir or runner.work_dir
        backend = get_file_backend(out_dir, backend_args=self.backend_args)
        local = isinstance(backend, LocalBackend) and not self.file_client_args
        if local:
            self.backend_args = dict(backend='whole_files')
        super().before_train(runner)
        # what a better one replaces is here, not where the work dir was copied from
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        bests = getattr(self, 'best_ckpt_path_dict', {})
        bests.update({key: self._here(path) for key, path in bests.items() if path})
        if local and is_main_process():  # of a process that was killed
            for part in Path(self.out_dir).glob('.*.pth.*.part'):
                part.unlink(missing_ok=True)

    def _here(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # as mmengine's, but for its order: that removes and then writes
        name = self.filename_tmpl.format(step)
        gone = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            kept = [*self.keep_ckpt_ids, step]
            # a resumed run removes those that one killed before it could has left
            runner.message_hub.update_info('keep_ckpt_ids', kept)
            gone, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept)
        self.last_ckpt = self._here(name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = Path(runner.work_dir, 'last_checkpoint')
            write_checkpoint(pointer, self.last_ckpt.encode())
            for each in gone:
                old = self._here(self.filename_tmpl.format(each))
                if self.file_backend.isfile(old):
                    self.file_backend.remove(old)
