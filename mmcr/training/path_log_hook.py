"""What a supernet's training did with each value of each choice, to look at."""

from math import isfinite

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmcr.checks import check_integer
from mmcr.models.detector import find_backbone
from mmcr.registry import HOOKS
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace


class PathRecord:
    """How often each value of each choice was trained, and with which loss.

    Losses that are not finite, as of steps that a loss scaler skips, are left out.
    Every other one weighs ``1 / window`` of a value's mean, the first ones equal.
    """

    def __init__(self, space: SearchSpace, window: int) -> None:
        self.window = window
        self.steps, self.finite, self.losses = (
            {choice.name: dict.fromkeys(choice.values, 0) for choice in space.choices}
            for _ in range(3)
        )

    def add(self, arch: Arch, loss: float) -> None:
        """Notes an iteration."""
        for name, value in arch.items():
            self.steps[name][value] += 1
            if isfinite(loss):
                self.finite[name][value] += 1
                weight = 1 / min(self.finite[name][value], self.window)
                self.losses[name][value] += weight * (loss - self.losses[name][value])

    def go_on(self, steps: dict, losses: dict, finite: dict | None = None) -> None:
        """Takes over another record's numbers of the values that both have."""
        tables = steps, losses, finite or steps  # older checkpoints have no `finite`
        for ours, theirs in zip((self.steps, self.losses, self.finite), tables):
            for name, row in ours.items():
                found = theirs.get(name, {})
                row.update((v, found[v]) for v in row.keys() & found.keys())

    def scalars(self) -> dict[str, float]:
        """By tag; values that were never trained with a finite loss have none."""
        found = {}
        for name, steps in self.steps.items():
            for value, count in steps.items():
                found[f'path_steps/{name}/{value}'] = count
                if self.finite[name][value]:
                    found[f'path_loss/{name}/{value}'] = self.losses[name][value]
        return found

    def table(self) -> str:
        """A line per choice: value, steps and loss."""
        return '\n'.join(
            f'  {name}: '
            + ', '.join(
                f'{value}: {count}x'
                + f' {self.losses[name][value]:.4f}' * bool(self.finite[name][value])
                for value, count in steps.items()
            )
            for name, steps in self.steps.items()
        )


@HOOKS.register_module()
class PathLogHook(Hook):
    """Logs which paths are trained, how often, and with which loss.

    Writes to every backend of the visualizer the path drawn as ``path/CHOICE``, the
    steps of every value so far as ``path_steps/CHOICE/VALUE`` and their mean loss as
    ``path_loss/CHOICE/VALUE``, and a table to the text log. Steps and losses are
    saved in checkpoints; losses are those of the first rank, as in mmengine's log.

    Args:
        interval: Iterations between two records for the visualizer; 0: none.
        table_interval: Iterations between two tables in the text log, which the end
            of training has too; 0: none.
        window: How many steps of a value its loss is averaged over.

    Raises:
        UserError: One of them is no integer or too small.
    """

    def __init__(
        self, interval: int = 50, table_interval: int = 5000, window: int = 100
    ) -> None:
        check_integer('interval', interval, at_least=0)
        check_integer('table_interval', table_interval, at_least=0)
        check_integer('window', window)
        self.interval = interval
        self.table_interval = table_interval
        self.window = window
        self._resumed = None

    def before_train(self, runner: Runner) -> None:
        self.record = PathRecord(find_backbone(runner.model).space, self.window)
        if self._resumed is not None:
            self.record.go_on(**self._resumed)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        arch = find_backbone(runner.model).arch
        # what the largest path teaches it does not learn itself: not comparable
        taught = outputs.get('loss_distillation', 0.0)
        self.record.add(arch, float(outputs['loss'] - taught))
        if self.every_n_train_iters(runner, self.interval):
            drawn = {f'path/{name}': value for name, value in arch.items()}
            runner.visualizer.add_scalars(
                {**drawn, **self.record.scalars()}, step=runner.iter + 1
            )
        is_last = self.is_last_train_iter(runner)  # its table comes at the end
        if self.every_n_train_iters(runner, self.table_interval) and not is_last:
            self._tell(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        if self.table_interval:
            self._tell(runner, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['path_log'] = dict(
            steps=self.record.steps,
            losses=self.record.losses,
            finite=self.record.finite,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._resumed = checkpoint.get('path_log')

    def _tell(self, runner: Runner, iterations: int) -> None:
        runner.logger.info(
            f'Paths of {iterations} iterations, the last with '
            f'{find_backbone(runner.model).arch}. By choice and value, how often it '
            f'was trained and its mean loss:\n{self.record.table()}'
        )
