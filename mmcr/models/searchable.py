"""What the engine may expect of every searchable backbone."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models.arguments import SUPERNETS
from mmcr.models.layer_choice import LayerChoice
from mmcr.models.norms import is_batch_norm
from mmcr.models.recomputation import recompute_blocks
from mmcr.models.weights.compatibility import check_choices, check_names
from mmcr.space.arch import Arch
from mmcr.space.presets import dilations_of, stage_blocks_of
from mmcr.space.space import SearchSpace


class Step(NamedTuple):
    """One piece of a backbone's forward.

    Running all steps in order on an image batch is the backbone's forward;
    what a step returns depends on the choices of the steps up to it alone, so
    candidates that agree so far can share the result.
    """

    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]  # those that `run` uses
    choices: tuple[str, ...]  # names of the choices that decide inside
    is_output: bool  # whether the result is one of the backbone's outputs


class SearchableBackbone:
    """Mixin: a backbone whose supernet mode runs one architecture at a time.

    A subclass has `supernet` (its mode: ``None`` or one of `modes`), `space`
    (``None`` outside supernet mode) and `steps`; it calls `_remember` with the
    arguments that all its fixed networks share, and `_complete` when it is built.
    """

    modes: tuple[str, ...] = SUPERNETS
    supernet: str | None
    space: SearchSpace | None

    def _remember(self, **arguments) -> None:
        # where a supernet's weights came from says nothing of a fixed network's
        arguments.pop('init_cfg', None)
        arguments.pop('pretrained', None)
        self._fixed_cfg = arguments

    def _complete(self) -> None:
        self._layer_choices = [m for m in self.modules() if isinstance(m, LayerChoice)]
        recompute_blocks(self)

    @property
    def arch(self) -> Arch:
        """The active architecture: what the next forward runs."""
        active = {place.choice: place.active for place in self._layer_choices}
        return Arch(
            {
                choice.name: active[choice.name]
                for choice in self._require_space().choices
            }
        )

    def set_arch(self, arch: Arch) -> None:
        """Makes `arch` the path of every forward from now on.

        Raises:
            ArchError: It is not a member of the space; the message names the
                choice, the value and what is allowed.
        """
        self._require_space().validate(arch)
        for place in self._layer_choices:
            place.active = arch[place.choice]

    def arch_cfg(self, arch: Arch) -> dict:
        """Constructor arguments (with ``type``) of the fixed network `arch`."""
        self._require_space().validate(arch)
        # copied: mmdet's blocks pop entries of some of these dicts
        cfg = copy.deepcopy(self._fixed_cfg)
        cfg.update(self._arguments_of(arch))
        return dict(type=f'mmcr.{type(self).__name__}', **cfg)

    def steps(self) -> list[Step]:
        """The forward, cut wherever a choice decides."""
        raise NotImplementedError

    def active_norms(self, step: Step) -> list[nn.Module]:
        """The batch norms that `step` runs under the active architecture."""
        return [
            module
            for root in step.modules
            for module in _active_modules(root)
            if is_batch_norm(module)
        ]

    def active_parameters(self) -> list[nn.Parameter]:
        """Those that a forward under the active architecture runs, each once."""
        return list(
            dict.fromkeys(
                parameter
                for module in _active_modules(self)
                for parameter in module.parameters(recurse=False)
            )
        )

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args
    ) -> None:
        # torch's and mmengine's loaders both come here before they copy anything;
        # given to a backbone alone, as Pretrained does, weights of other names would
        # be left out with no more than a line in the log, as those of another space
        if not prefix and state_dict:
            check_names(state_dict, self)
        own = [k[len(prefix) :] for k in state_dict if k.startswith(prefix)]
        check_choices(own, self)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _arguments_of(self, arch: Arch) -> dict:
        """The constructor's arguments that tell `arch` from the others."""
        if self.supernet == 'stage':
            return dict(stage_blocks=stage_blocks_of(arch))
        return dict(dilations=dilations_of(arch))

    def _require_space(self) -> SearchSpace:
        if self.space is None:
            modes = ' or '.join(f'supernet={mode!r}' for mode in self.modes)
            raise UserError(
                f'Only a supernet has architectures to choose from, but this '
                f'{type(self).__name__} is a fixed network. Build it with {modes}.'
            )
        return self.space


def stage_steps(layer: nn.Module, is_output: bool) -> list[Step]:
    """One stage as a step, or as one step per block where its blocks decide.

    Args:
        layer: A stage, its blocks in order, or the choice of a stage.
        is_output: Whether the stage's result is an output of the backbone.
    """
    if isinstance(layer, LayerChoice) or not _choices_in(layer):
        return [Step(layer, (layer,), _choices_in(layer), is_output)]
    return [
        Step(block, (block,), _choices_in(block), is_output and block is layer[-1])
        for block in layer
    ]


def _choices_in(module: nn.Module) -> tuple[str, ...]:
    places = (m for m in module.modules() if isinstance(m, LayerChoice))
    return tuple(dict.fromkeys(place.choice for place in places))


def _active_modules(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    inside = (
        [module.active_option] if isinstance(module, LayerChoice) else module.children()
    )
    for child in inside:
        yield from _active_modules(child)
