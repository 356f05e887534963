"""Whether weights are those of a network, before they are loaded."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from mmcr.models.weights.checkpoint import (
    CheckpointError,
    check_finite,
    read_weights,
    unwrapped_names,
)

#: How the names of a block's weights begin, or of what is beside it in its stage.
BLOCK = re.compile(
    r'(?:(?:layer|stage)\d+\.\d+\.(?:blocks\.\d+\.)?|stages\.\d+\.(?:blocks\.)?\d+\.)'
)
PREPROCESSOR = 'data_preprocessor.'
#: What old files lack and no forward misses: a counter, and an index that follows from
#: the size of a window.
NEEDLESS = 'num_batches_tracked', 'relative_position_index'


def check_supernet_checkpoint(model: nn.Module, path: str | None) -> None:
    """Raises `CheckpointError` unless a file holds the weights of this supernet.

    `model` is a detector with a supernet backbone, not wrapped.
    """
    if path is None:
        raise CheckpointError(
            'A search scores with trained supernet weights, but no checkpoint is '
            'given: name one on the command line or set load_from in the config.'
        )
    if '://' in str(path):
        raise CheckpointError(
            f'A journal tells checkpoints apart by their bytes, so a search takes a '
            f'file, but got {path}. Download it and give its path.'
        )
    given = unwrapped_names(read_weights(path))
    in_backbone = [key for key in given if key.startswith('backbone.')]
    if not any('.options.' in key for key in in_backbone):
        raise CheckpointError(
            f'The search needs supernet weights, but {path} holds '
            f'{len(in_backbone)} weights of a fixed backbone. Give the checkpoint of '
            f'the supernet training.'
        )
    _compare(given, model.state_dict(), path)


def load_detector(detector: nn.Module, path: str) -> None:
    """Loads a whole detector from a checkpoint, whoever saved it.

    mmengine loads whatever matches and goes on with the rest at random. Names may begin
    with ``module.`` or be of before, as mmdet's heads know them. What the file has
    beside the detector, such as averages of all weights (``ema_...``) or a head of
    another task, is left out.

    Raises:
        CheckpointError: The detector has weights that the file lacks or has in another
            shape, or the file has further layers of a part of the detector.
    """
    weights = unwrapped_names(read_weights(path))
    # some published ones have mean and std, which are the config's
    weights = {n: w for n, w in weights.items() if not n.startswith(PREPROCESSOR)}
    _refuse(_other_shapes(weights, detector.state_dict()), path)
    try:
        missing, unknown = detector.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of another shape under a name of before
        said = str(error).splitlines()
        _refuse([line.strip() for line in said[1:] or said], path)
    modules = {name for name, _ in detector.named_modules()}
    problems = [
        *(f'{name} is missing' for name in missing if not name.endswith(NEEDLESS)),
        *(f'{name} is unknown' for name in unknown if _is_of_a_part(name, modules)),
    ]
    _refuse(problems, path)


def _is_of_a_part(name: str, modules: Collection[str]) -> bool:
    """Whether a weight is of a module that is there, or of one more in a list.

    Of the backbone, whatever begins so.
    """
    if name.endswith(NEEDLESS):
        return False
    *owner, first = name.split('.')
    while owner and '.'.join(owner) not in modules:
        first = owner.pop()
    is_parameter = name == '.'.join((*owner, first))
    inside = owner and (is_parameter or first.isdigit())
    return bool(inside) or name.startswith('backbone.')


def check_weights(weights: Mapping[str, Tensor], model: nn.Module, path: str) -> None:
    """Raises `CheckpointError` unless weights are just those of `model`."""
    _compare(unwrapped_names(weights), model.state_dict(), path)


def backbone_of_detector(
    weights: Mapping[str, Tensor], backbone: nn.Module, path: str
) -> dict[str, Tensor]:
    """Returns what a detector's state dict holds of its backbone, a supernet.

    Raises:
        CheckpointError: It is another than `backbone`, or not finite.
    """
    prefix = 'backbone.'
    weights = unwrapped_names(weights)
    inside = {name: w for name, w in weights.items() if name.startswith(prefix)}
    check_finite(inside, path)
    wanted = {prefix + name: weight for name, weight in backbone.state_dict().items()}
    _compare(inside, wanted, path)
    return {name.removeprefix(prefix): w for name, w in inside.items()}


def check_start(weights: Mapping[str, Tensor], model: nn.Module, path: str) -> None:
    """Raises `CheckpointError` where `model` would start without these weights.

    Heads may be others, for other classes; the backbone may not.
    """
    weights = unwrapped_names(weights)
    if weights.keys().isdisjoint(model.state_dict()):
        raise CheckpointError(
            f'load_from takes weights of a detector, but {path} has none of the names '
            f'of this {type(model).__name__} ({next(iter(weights), "none at all")}, '
            f'...). Weights of a backbone alone go into its init_cfg.'
        )
    backbone = getattr(model, 'backbone', None)
    if backbone is not None:
        start = len('backbone.')
        inside = {k[start:]: w for k, w in weights.items() if k.startswith('backbone.')}
        check_shapes(inside, backbone, path)


def check_names(weights: Mapping[str, Tensor], backbone: nn.Module) -> None:
    """Raises unless some weight is the backbone's."""
    own = backbone.state_dict().keys()
    if not own.isdisjoint(weights):
        return
    first = next(iter(own))
    remedy = f'Its own begin with {first}'
    if prefixed := [name for name in weights if name.endswith(f'.{first}')]:
        prefix = min(prefixed, key=len).removesuffix(first)  # a block's is longer
        remedy = f'Give Pretrained prefix={prefix!r}'
    raise CheckpointError(
        f'Weights for a {type(backbone).__name__} must have its names, but none of the '
        f'{len(weights)} given has ({next(iter(weights))}, ...). {remedy}.'
    )


def check_choices(
    given: Collection[str], backbone: nn.Module, alone: bool = True
) -> None:
    """Raises where names are not of what `backbone` chooses from, or of its blocks.

    A supernet in a detector, not `alone`, may start from a plain one, whose weights
    fill the rest of it: the log warns.
    """
    kind = type(backbone).__name__
    names = set(backbone.state_dict())
    wanted = {name for name in names if '.options.' in name}
    supernets = any('.options.' in name for name in given)
    if supernets and not wanted:
        raise CheckpointError(
            f'Weights for a fixed {kind} must be those of a fixed network, but a '
            f'supernet is given. Take the network out of it with '
            f'tools/model_converters/extract_subnet.py.'
        )
    if supernets:
        missing, rule = wanted.difference(given), 'have all that it chooses from'
        remedy = (
            'those given are of another space or another share=. Give the backbone the '
            'arguments that they were trained with'
        )
    else:
        there = {match[0] for name in given if (match := BLOCK.match(name))}
        # all of a block: a part that was added to blocks starts anew
        missing = {n for n in names if (m := BLOCK.match(n)) and m[0] not in there}
        missing = (missing | wanted) if there else set()
        rule = 'have all of its blocks'
        remedy = (
            "they would start at random. init_cfg=dict(type='mmcr.ReallocatedInit', "
            'checkpoint=...) of the backbone fills all but DetNASNet, of any numbers '
            'of blocks, and their supernets'
        )
    if missing:
        message = (
            f'Weights for a {kind} must {rule}, but {len(missing)} of {len(names)} are '
            f'missing, such as {min(missing)}: {remedy}.'
        )
        if alone or supernets or not wanted:
            raise CheckpointError(message)
        print_log(message, 'current', logging.WARNING)


def check_shapes(
    given: Mapping[str, Tensor], backbone: nn.Module, path: str = 'The checkpoint'
) -> None:
    """Raises where weights of a backbone's names have another shape than its own.

    mmengine would leave these at random.
    """
    own = backbone.state_dict()
    both = [name for name in own if name in given]
    other = [n for n in both if given[n].shape != own[n].shape]
    if other:
        name = next((n for n in reversed(other) if own[n].dim() == 1), other[-1])
        theirs, ours = (tuple(of[name].shape) for of in (given, own))
        raise CheckpointError(
            f'{path} must be as wide as the {type(backbone).__name__} in the config, '
            f'but {len(other)} of {len(both)} weights differ in shape, such as {name} '
            f'with {theirs} there and {ours} here. Build the backbone as the '
            f'checkpoint has it (base_channels, widen_factor, embed_dims and depth '
            f'decide that), or train this width from the start.'
        )


def _compare(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str
) -> None:
    problems = [
        *(f'{key} is missing' for key in wanted if key not in given),
        *(f'{key} is unknown' for key in given if key not in wanted),
        *_other_shapes(given, wanted),
    ]
    _refuse(problems, path)


def _other_shapes(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[str]:
    both = [key for key in wanted if key in given]
    shapes = {key: (tuple(given[key].shape), tuple(wanted[key].shape)) for key in both}
    return [f'{k} has shape {a}, not {b}' for k, (a, b) in shapes.items() if a != b]


def _refuse(problems: Sequence[str], path: str) -> None:
    if problems:
        raise CheckpointError(
            f'{path} must hold the weights of the network in the config, but it is of '
            f'another space or detector, another share= or another architecture: '
            f'{len(problems)} differences, such as {"; ".join(problems[:3])}. Use the '
            f'config that the checkpoint was trained with.'
        )
