"""What a checkpoint file holds, by the names of mmdet's backbones."""

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmcr.atomic import write_bytes
from mmcr.errors import UserError

FIRST_BLOCK = re.compile(r'(.*?)(?:layer1\.0|features\.0\.0)\.')
OPTION = re.compile(r'\.options\.\w+')

# MobileNetV2: blocks of each layer, convs of a block, parts of a conv layer
INVERTED_RESIDUALS = (1, 2, 3, 4, 3, 3, 1)
CONVS = ('expand_conv', 'depthwise_conv', 'linear_conv')
PARTS = ('conv', 'bn')


class CheckpointError(UserError):
    """A checkpoint that does not hold what the run needs."""


def read_weights(checkpoint: str, map_location: str = 'cpu') -> dict[str, Tensor]:
    """The weights in a checkpoint, whoever saved it.

    Args:
        checkpoint: A file, or an address that mmengine knows, such as
            ``torchvision://resnet50`` or ``https://...``.
        map_location: Device of the tensors, as in `torch.load`.

    Raises:
        CheckpointError: It is missing, unreadable or without weights.
    """
    checkpoint = str(checkpoint)
    if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise CheckpointError(
            f'The checkpoint must be a file or an address such as '
            f'torchvision://resnet50, but there is no file {checkpoint}.'
        )
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location)
    except Exception as error:  # whatever torch's unpickler makes of foreign bytes
        raise CheckpointError(
            f'{checkpoint} must be a checkpoint that torch.save wrote, but reading it '
            f'fails: {type(error).__name__}: {error}. Fetch the file again and '
            f'give its path.'
        ) from None
    for place in ('state_dict', 'model'):  # mmengine's, torchvision's trainer's
        if isinstance(content, Mapping) and isinstance(content.get(place), Mapping):
            content = content[place]
    weights = dict(content) if isinstance(content, Mapping) else {}
    weights = {name: w for name, w in weights.items() if isinstance(w, Tensor)}
    if not weights:
        raise CheckpointError(
            f'{checkpoint} must hold weights by name (a state dict), but it holds '
            f'a {type(content).__name__} without any.'
        )
    return weights


def backbone_weights(
    weights: Mapping[str, Tensor], origin: str, prefix: str | None = None
) -> tuple[dict[str, Tensor], Counter]:
    """The backbone's part of a network's weights, named as mmdet names them.

    Understands torchvision, mmpretrain and mmdet, ResNets and MobileNetV2.

    Args:
        weights: Of a classifier, a detector or a backbone alone.
        origin: Where they come from, for messages.
        prefix: What the names of the backbone's weights begin with; ``None``:
            found out.

    Returns:
        The weights, and how many others there are by the part of their name
        before the first dot.

    Raises:
        CheckpointError: There is no such backbone, or more than one.
    """
    if any(OPTION.search(name) for name in weights):
        raise CheckpointError(
            f'{origin} must be of a fixed network, but it holds a supernet. '
            f'tools/model_converters/extract_subnet.py takes one path out of it.'
        )
    firsts = (FIRST_BLOCK.match(name) for name in weights)
    found = sorted({first[1] for first in firsts if first})
    if not found:
        raise CheckpointError(
            f'{origin} must hold a ResNet, ResNeXt or MobileNetV2, but no weight is '
            f'named like their first block (layer1.0...): {_some(weights)}.'
        )
    if prefix is None and len(found) > 1:
        raise CheckpointError(
            f'{origin} must hold one backbone, but it holds several. Name one by '
            f'prefix: {", ".join(map(repr, found))}.'
        )
    prefix = found[0] if prefix is None else prefix
    if prefix not in found:
        raise CheckpointError(
            f'prefix must be what the names of a backbone begin with, here '
            f'{", ".join(map(repr, found))}, but got {prefix!r}.'
        )
    inside = {
        _mmdet_name(name[len(prefix) :]): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
    others = Counter(
        name.split('.')[0] for name in weights if not name.startswith(prefix)
    )
    return inside, others


def write_weights(path: Path, weights: Mapping[str, Tensor], **meta: object) -> None:
    """Writes a checkpoint, the whole of it or nothing.

    Args:
        path: The file.
        weights: A state dict.
        meta: What else to say; plain values.
    """
    file = BytesIO()
    torch.save(dict(meta=meta, state_dict=OrderedDict(weights)), file)
    try:
        write_bytes(path, file.getvalue())
    except OSError as error:
        raise UserError(f'Writing the checkpoint {path} fails: {error}.') from None


def _some(names: Mapping) -> str:
    return ', '.join(list(names)[:3]) + (', ...' if len(names) > 3 else '')


def _mobilenet_names() -> dict[str, str]:
    """From torchvision's and mmpretrain's names of MobileNetV2 to mmdet's."""
    names = {}
    index = 1
    for layer, blocks in enumerate(INVERTED_RESIDUALS, start=1):
        convs = CONVS[1:] if layer == 1 else CONVS  # the first expands nothing
        for block in range(blocks):
            torchvision = f'features.{index}.conv'
            for i, name in enumerate(convs):
                conv, bn = (f'layer{layer}.{block}.{name}.{part}' for part in PARTS)
                is_last = name == CONVS[-1]
                names[f'{torchvision}.{i}' + '.0' * (not is_last)] = conv
                names[
                    f'{torchvision}.{i + 1}' if is_last else f'{torchvision}.{i}.1'
                ] = bn
                mmpretrain = f'layer{layer}.{block}.conv.{i}'
                names[f'{mmpretrain}.conv'], names[f'{mmpretrain}.bn'] = conv, bn
            index += 1
    for place, name in ((0, 'conv1'), (index, 'conv2')):
        for i, part in enumerate(PARTS):
            names[f'features.{place}.{i}'] = f'{name}.{part}'
    return names


MMDET_NAMES = _mobilenet_names()


def _mmdet_name(name: str) -> str:
    layer, _, leaf = name.rpartition('.')
    return f'{MMDET_NAMES.get(layer, layer)}.{leaf}' if layer else name
