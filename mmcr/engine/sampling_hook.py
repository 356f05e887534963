"""Single-path uniform sampling of a supernet (CR-NAS, Sec. 3.2; SPOS)."""

import random

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmcr.engine.paths import find_backbone
from mmcr.registry import HOOKS
from mmcr.space.arch import Arch


@HOOKS.register_module()
class ArchSamplingHook(Hook):
    """Draws the path of every training iteration.

    The draw is a function of the seed and the iteration alone: all ranks draw
    the same path, and a resumed run goes on with the stream of the run that it
    continues (the seed travels with the checkpoint). With gradient accumulation
    one update sums up the gradients of several paths.

    Args:
        seed: Of the stream of paths.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def draw(self, space, iteration: int) -> Arch:
        """The path of an iteration: uniform over the space."""
        return space.sample(random.Random(f'{self.seed}/{iteration}'))

    def before_train(self, runner: Runner) -> None:
        find_backbone(runner.model)  # a fixed network ends here, not later

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        backbone = find_backbone(runner.model)
        backbone.set_arch(self.draw(backbone.space, runner.iter))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['arch_sampling'] = dict(seed=self.seed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint.get('arch_sampling')
        if state is None or not runner._resume or state['seed'] == self.seed:
            return
        runner.logger.warning(
            f'The resumed run drew its paths with seed {state["seed"]}, the config '
            f'says {self.seed}: going on with {state["seed"]}.'
        )
        self.seed = state['seed']
