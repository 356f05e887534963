"""Whether weights are those of a network, before they are loaded."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from mmcr.models.weights.checkpoint import (
    CheckpointError,
    read_weights,
    unwrapped_names,
)


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
    given = _finite_weights(path)
    in_backbone = [key for key in given if key.startswith('backbone.')]
    if not any('.options.' in key for key in in_backbone):
        raise CheckpointError(
            f'The search needs supernet weights, but {path} holds '
            f'{len(in_backbone)} weights of a fixed backbone. Give the checkpoint of '
            f'the supernet training.'
        )
    _compare(given, model.state_dict(), path)


def check_checkpoint(model: nn.Module, path: str) -> None:
    """Raises `CheckpointError` unless a file holds just the weights of `model`.

    mmengine loads whatever matches and goes on with the rest at random.
    """
    _compare(_finite_weights(path), model.state_dict(), path)


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
    _check_finite(inside, path)
    wanted = {prefix + name: weight for name, weight in backbone.state_dict().items()}
    _compare(inside, wanted, path)
    return {name.removeprefix(prefix): w for name, w in inside.items()}


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


def check_choices(given: Collection[str], backbone: nn.Module) -> None:
    """Raises where names are a supernet's, and not of what `backbone` chooses from."""
    if not any('.options.' in name for name in given):
        return
    wanted = [name for name in backbone.state_dict() if '.options.' in name]
    if not wanted:
        raise CheckpointError(
            f'Weights for a fixed {type(backbone).__name__} must be those of a fixed '
            f'network, but a supernet is given. Take the network out of it with '
            f'tools/model_converters/extract_subnet.py.'
        )
    missing = sorted(set(wanted).difference(given))
    if missing:
        raise CheckpointError(
            f'Weights for a supernet must have all that it chooses from, but '
            f'{len(missing)} of {len(wanted)} are missing, such as {missing[0]}: those '
            f'given are of another space or another share=. Give the backbone the '
            f'arguments that they were trained with.'
        )


def _finite_weights(path: str) -> dict[str, Tensor]:
    weights = unwrapped_names(read_weights(path))
    _check_finite(weights, path)
    return weights


def _check_finite(weights: Mapping[str, Tensor], path: str) -> None:
    broken = [k for k, w in weights.items() if not w.isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{path} must hold finite weights, but {len(broken)} of {len(weights)} '
            f'hold NaN or infinity, such as {broken[0]}: the training has diverged. '
            f'Use an earlier checkpoint, or train again with a lower learning rate.'
        )


def _compare(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str
) -> None:
    both = [key for key in wanted if key in given]
    shapes = {key: (tuple(given[key].shape), tuple(wanted[key].shape)) for key in both}
    problems = [
        *(f'{key} is missing' for key in wanted if key not in given),
        *(f'{key} is unknown' for key in given if key not in wanted),
        *(f'{k} has shape {a}, not {b}' for k, (a, b) in shapes.items() if a != b),
    ]
    if problems:
        raise CheckpointError(
            f'{path} must hold the weights of the network in the config, but it is of '
            f'another space or detector, another share= or another architecture: '
            f'{len(problems)} differences, such as {"; ".join(problems[:3])}. Use the '
            f'config that the checkpoint was trained with.'
        )
