"""The contract of searchable backbones: what the rooms above may expect of each."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from typing import NamedTuple

from torch import Tensor, nn

from mmcr.checks import near
from mmcr.errors import UserError
from mmcr.models.layer_choice import LayerChoice
from mmcr.models.norms import is_batch_norm
from mmcr.models.recomputation import recompute_blocks
from mmcr.models.weights.compatibility import (
    check_choices,
    check_names,
    check_shapes,
)
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace


class FixedNetworkError(UserError, AttributeError):
    """A fixed network is asked for what only a supernet has."""


class ForwardStep(NamedTuple):
    """One step of a backbone's forward.

    What a step returns depends on the choices of the steps up to it alone, so
    candidates that agree so far can share the result.

    Attributes:
        run: From ``N x C x H x W`` features to the next.
        modules: Those that `run` uses.
        choices: Names of the choices that decide inside.
        channels: Of what `run` returns, and of the output.
        stride: Likewise, against the image; sizes are rounded up, ConvNeXt's down.
        output: What the backbone gives out here, from what `run` returned (a norm of
            it, where the next step does not see the norm); ``None``: nothing.
        output_modules: Those that `output` uses.
    """

    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    choices: tuple[str, ...]
    channels: int
    stride: int
    output: Callable[[Tensor], Tensor] | None = None
    output_modules: tuple[nn.Module, ...] = ()

    @property
    def is_output(self) -> bool:
        """Whether the backbone gives something out here."""
        return self.output is not None


class SearchableBackbone:
    """Mixin: a backbone whose supernet mode runs one architecture at a time.

    A subclass has `supernet` (its mode: ``None`` or one of `modes`), `space`
    (``None`` outside supernet mode) and `out_indices`; it calls `_remember` with the
    arguments that all its fixed networks share, and `_complete` when it is built.
    """

    modes: tuple[str, ...]
    first_stage = 1  # its number in the names of choices
    first_output = 0  # its number in `out_indices`, where the stem may be one
    default_budget = 'blocks'  # in which a reallocation holds the cost
    original: str | None = None  # its network's name in configs, if not mmdet's
    mmdets_defaults: Mapping = {}  # of arguments that have others here
    width_of_64: int | None = None  # `base_width` for 64 `base_channels`, if it has one
    supernet: str | None
    space: SearchSpace | None

    def _stem_step(self) -> ForwardStep:
        """What runs before the stages."""
        raise NotImplementedError

    def _stages(self) -> Iterable[tuple[nn.Module, int, int]]:
        """Each stage with its channels and its stride, as `out_indices` counts them."""
        raise NotImplementedError

    def _before(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]] | None:
        """What runs between a stage and the one before it, and its modules."""

    def _output(self, stage: int) -> tuple[Callable, tuple[nn.Module, ...]]:
        """What makes an output of a stage's result, and its modules."""
        return unchanged, ()

    def _arguments_of(self, arch: Arch) -> dict:
        """The constructor's arguments that tell `arch` from the others."""
        raise NotImplementedError

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
        space = self._require_space()
        active = {place.choice: place.active for place in self._layer_choices}
        return Arch({choice.name: active[choice.name] for choice in space.choices})

    def __getattr__(self, name: str) -> object:
        if name == 'arch':  # nn.Module's message would not say why there is none
            self._require_space()
        return super().__getattr__(name)

    def set_arch(self, arch: Arch) -> None:
        """Makes a member of the space the path of every forward from now on."""
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

    def steps(self) -> list[ForwardStep]:
        """The forward, cut wherever a choice decides: by stage, or by block."""
        steps = [self._stem_step()]
        stages = enumerate(self._stages(), self.first_output)
        for i, (stage, *size) in stages:
            if before := self._before(i):
                steps.append(ForwardStep(*before, (), *size))
            parts = self._parts(stage)
            for part in parts:
                is_output = i in self.out_indices and part is parts[-1]
                output = self._output(i) if is_output else ()
                choices = _choices_in(part)
                steps.append(ForwardStep(part, (part,), choices, *size, *output))
        return steps

    def _parts(self, stage: nn.Module) -> Sequence[nn.Module]:
        """What `steps` cuts a stage into."""
        is_cut = _choices_in(stage) and not isinstance(stage, LayerChoice)
        return list(stage) if is_cut else [stage]

    def chain_of(self, part: nn.Module) -> nn.Module:
        """The blocks among which choices decide, in what a step of a network runs."""
        return part

    @classmethod
    def width_with(cls, base_channels: int) -> int | None:
        """The `base_width` of a network that names none: in proportion, at least 1."""
        return cls.width_of_64 and max(1, cls.width_of_64 * base_channels // 64)

    @property
    def image_channels(self) -> int:
        """Channels of the images that it takes."""
        return next(m for m in self.modules() if isinstance(m, nn.Conv2d)).in_channels

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output: what a neck takes as ``in_channels``."""
        return tuple(step.channels for step in self.steps() if step.is_output)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride of each output against the image."""
        return tuple(step.stride for step in self.steps() if step.is_output)

    @property
    def stage_strides(self) -> dict[str, int]:
        """Stride of each stage of blocks, by its name in the choices."""
        return {
            f'stage{i}': stride
            for i, (stage, _, stride) in enumerate(self._stages(), self.first_stage)
            if isinstance(stage, (nn.Sequential, LayerChoice))
        }

    def active_norms(self, step: ForwardStep) -> list[nn.Module]:
        """The batch norms that `step` runs under the active architecture."""
        return [
            module
            for root in step.modules
            for module in _active_modules(root)
            if is_batch_norm(module)
        ]

    def active_parameters(self) -> list[nn.Parameter]:
        """Those that a forward under the active architecture runs, each once."""
        modules = _active_modules(self)
        parameters = (p for module in modules for p in module.parameters(recurse=False))
        return list(dict.fromkeys(parameters))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args
    ) -> None:
        # torch's and mmengine's loaders both come here before they copy anything;
        # given to a backbone alone, as Pretrained does, weights of other names would
        # be left out with no more than a line in the log, as those of another space
        if not prefix and state_dict:
            check_names(state_dict, self)
        start = len(prefix)
        own = {k[start:]: w for k, w in state_dict.items() if k.startswith(prefix)}
        check_choices(own, self, alone=not prefix)
        check_shapes(own, self)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_arguments(self, given: Iterable[str]) -> None:
        """Refuses what no constructor takes, as a backbone of another kind leaves."""
        takes = {
            name
            for kind in type(self).__mro__
            if '__init__' in vars(kind)
            for name in signature(kind.__init__).parameters
        }
        if foreign := sorted(set(given) - takes):
            raise UserError(
                f'{type(self).__name__} takes no {", ".join(foreign)}'
                f'{near(foreign[0], takes)}. Where they are of a backbone of another '
                f'kind, which this one is merged with, write dict(_delete_=True, ...) '
                f'with the out_indices of the strides that the neck takes.'
            )

    def _check_mode(self, supernet: str | None) -> None:
        if supernet not in (None, *self.modes):
            raise UserError(
                f'supernet must be None or {" or ".join(map(repr, self.modes))}, but '
                f'got {supernet!r}.'
            )

    def _require_space(self) -> SearchSpace:
        if self.space is None:
            modes = ' or '.join(f'supernet={mode!r}' for mode in self.modes)
            raise FixedNetworkError(
                f'Only a supernet has architectures to choose from, but this '
                f'{type(self).__name__} is a fixed network. Build it with {modes}.'
            )
        return self.space


def unchanged(x: Tensor) -> Tensor:
    """What a step gives out where nothing is done to it."""
    return x


def _choices_in(module: nn.Module) -> tuple[str, ...]:
    places = (m for m in module.modules() if isinstance(m, LayerChoice))
    return tuple(dict.fromkeys(place.choice for place in places))


def _active_modules(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    is_choice = isinstance(module, LayerChoice)
    for child in [module.active_option] if is_choice else module.children():
        yield from _active_modules(child)
