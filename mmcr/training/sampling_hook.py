"""Single-path sampling of a supernet (CR-NAS, Sec. 3.2; SPOS)."""

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmcr.checks import checked_shape
from mmcr.cost.budget import own_costs
from mmcr.cost.units import count
from mmcr.errors import UserError
from mmcr.models.detector import find_backbone, unwrapped
from mmcr.models.weights.compatibility import backbone_of_detector
from mmcr.registry import HOOKS, TASK_UTILS
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace
from mmcr.training.samplers import (
    CostUniformSampler,
    PathSampler,
    SandwichSampler,
    StrictlyFairSampler,
    UniformSampler,
)

for kind in (UniformSampler, StrictlyFairSampler, CostUniformSampler, SandwichSampler):
    TASK_UTILS.register_module(module=kind)

COSTS = 'blocks', 'macs'


@HOOKS.register_module()
class ArchSamplingHook(Hook):
    """Draws the path of every training iteration.

    A resumed run goes on with the seed of its checkpoint. With gradient accumulation
    one update sums up the gradients of several paths.

    Args:
        seed: Of the sampler.
        sampler: Config of one of `mmcr.training.samplers`; ``None`` is the paper's,
            `mmcr.UniformSampler`.
        cost: What a sampler that looks at costs counts: ``'blocks'``, the space's
            own, or ``'macs'``, multiply-accumulates of the supernet's paths.
        shape: Height and width of the image for macs; ``None``: 800x1333.

    Raises:
        UserError: There is no such cost, or it does not depend on an image, or the
            sampler's config is none; when training starts: another hook sets paths,
            too, or the run to be resumed is of another supernet.
    """

    sets_paths = True  # as a hook of yours says that takes its place

    def __init__(
        self,
        seed: int = 0,
        sampler: Mapping | None = None,
        cost: str = 'blocks',
        shape: tuple[int, int] | None = None,
    ) -> None:
        if cost not in COSTS:
            raise UserError(f'cost must be one of {", ".join(COSTS)}, but got {cost!r}')
        if shape is not None and cost != 'macs':
            raise UserError(f"shape={shape} needs cost='macs', but got cost={cost!r}")
        self.shape = None if shape is None else checked_shape(shape)
        self.seed = seed
        self.sampler = UniformSampler() if sampler is None else _built(sampler)
        self.cost = cost

    def draw(self, space: SearchSpace, iteration: int) -> Arch:
        """The path of an iteration."""
        return self.sampler.draw(space, self.seed, iteration)

    def before_train(self, runner: Runner) -> None:
        # a fixed network ends here, and so does a space without such a stream
        self.space = self._costed(find_backbone(runner.model))
        check_sampled(runner)
        self.draw(self.space, runner.iter)
        if runner.iter:  # a resumed run may validate before it trains
            last = self.draw(self.space, runner.iter - 1)
            find_backbone(runner.model).set_arch(last)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        find_backbone(runner.model).set_arch(self.draw(self.space, runner.iter))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['arch_sampling'] = dict(seed=self.seed, kind=self._kind)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        # a checkpoint of another supernet; mmengine would fail in the optimizer
        path = runner._load_from or f'the last checkpoint of {runner.work_dir}'
        backbone_of_detector(
            checkpoint['state_dict'], find_backbone(runner.model), path
        )
        state = checkpoint.get('arch_sampling', dict(seed=self.seed))
        if state['seed'] != self.seed:
            runner.logger.warning(
                f'The resumed run drew its paths with seed {state["seed"]}, the config '
                f'says {self.seed}: going on with {state["seed"]}.'
            )
            self.seed = state['seed']
        if state.get('kind', self._kind) != self._kind:
            runner.logger.warning(
                f'The resumed run drew its paths with {state["kind"]}, the config '
                f'says {self._kind}: going on with {self._kind}.'
            )

    @property
    def _kind(self) -> str:
        shape = '' if self.shape is None else ' at {}x{}'.format(*self.shape)
        return f'{self.sampler} by {self.cost}{shape}'

    def _costed(self, backbone: nn.Module) -> SearchSpace:
        if not self.sampler.uses_costs:
            return backbone.space
        if self.cost == 'blocks':
            return own_costs(backbone)
        return SearchSpace(
            backbone.space.choices, count(backbone, {}, self.cost, self.shape)
        )


def check_sampled(runner: Runner) -> None:
    """Raises `UserError` unless a supernet has one hook that sets its paths.

    Without one, every iteration would train the first path, and the others never.
    """
    backbone = getattr(unwrapped(runner.model), 'backbone', None)
    setting = [
        type(hook).__name__
        for hook in runner.hooks
        if getattr(hook, 'sets_paths', False)
    ]
    if getattr(backbone, 'space', None) is not None and len(setting) != 1:
        raise UserError(
            f'A supernet is trained with one hook that sets its paths, but '
            f'custom_hooks of this config have '
            f'{", ".join(setting) or "none"}. Keep one, dict(type='
            f"'mmcr.ArchSamplingHook', seed=0) for example; a hook of your own says "
            f'that it sets them by an attribute: sets_paths = True.'
        )


def _built(sampler: Mapping) -> PathSampler:
    try:
        return TASK_UTILS.build(sampler)
    except (KeyError, TypeError) as error:
        raise UserError(
            f'sampler must be the config of a path sampler, like '
            f"dict(type='mmcr.CostUniformSampler', bins=10), but got {sampler!r}: "
            f'{error.args[0]}'
        ) from None
