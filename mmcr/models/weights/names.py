"""The names that other projects give to the weights of mmdet's backbones."""

import re
from collections import Counter
from collections.abc import Mapping

from mmdet.models.backbones.swin import swin_converter
from torch import Tensor

from mmcr.models.weights.checkpoint import CheckpointError, unwrapped_names

FIRST_BLOCK = re.compile(
    r'(.*?)(?:layer1\.0|features\.0\.0|stage1\.1\.main_conv|'
    r'(?:stages|layers)\.0\.blocks\.0|stages\.0\.0)\.'
)
OPTION = re.compile(r'\.options\.\w+')

# MobileNetV2: blocks of each layer, convs of a block, parts of a conv layer
INVERTED_RESIDUALS = (1, 2, 3, 4, 3, 3, 1)
CONVS = ('expand_conv', 'depthwise_conv', 'linear_conv')
PARTS = ('conv', 'bn')


def backbone_weights(
    weights: Mapping[str, Tensor], origin: str, prefix: str | None = None
) -> tuple[dict[str, Tensor], Counter]:
    """The backbone's part of a network's weights, named as mmdet names them.

    Understands torchvision's, mmpretrain's and mmdet's, of ResNets and MobileNetV2, and
    of Swin Transformers and ConvNeXt mmpretrain's, mmdet's and their authors'.

    Args:
        weights: Of a classifier, a detector or a backbone alone.
        origin: Where they come from, for messages.
        prefix: What the names of the backbone's weights begin with; ``None``:
            found out, a `CheckpointError` where that leaves a choice.

    Returns:
        The weights, and how many others there are by the first part of their name.
    """
    if any(OPTION.search(name) for name in weights):
        raise CheckpointError(
            f'{origin} must be of a fixed network, but it holds a supernet. '
            f'tools/model_converters/extract_subnet.py takes one path out of it.'
        )
    weights = unwrapped_names(weights)
    firsts = (FIRST_BLOCK.match(name) for name in weights)
    found = sorted({first[1] for first in firsts if first})
    if not found:
        some = ', '.join(list(weights)[:3])
        raise CheckpointError(
            f'{origin} must hold a ResNet, ResNeXt, RegNet, MobileNetV2, CSPDarknet, '
            f'CSPNeXt, ConvNeXt or Swin Transformer, but no weight is named like their '
            f'first block (layer1.0..., stage1.1.main_conv..., stages.0...): '
            f'{some}, ...'
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
        # ConvNeXt V2's authors keep them as 1 x 1 x 1 x C, mmpretrain as C
        _mmdet_name(name[len(prefix) :]): weight.flatten()
        if '.grn.' in name
        else weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
    others = Counter(
        name.split('.')[0] for name in weights if not name.startswith(prefix)
    )
    return _swin_names(inside), others


def _swin_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of Swin Transformers under mmdet's names, without the masks of old ones."""
    weights = {n: w for n, w in weights.items() if not n.endswith('attn_mask')}
    if not any(name.startswith('layers.0.blocks.') for name in weights):
        return weights
    heads = {name: w for name, w in weights.items() if name.startswith('head')}
    mmdets = swin_converter(weights)
    return {n.removeprefix('backbone.'): w for n, w in mmdets.items()} | heads


def _mobilenet_names() -> dict[str, str]:
    """From torchvision's and mmpretrain's names of MobileNetV2 to mmdet's."""
    names, index = {}, 1
    for layer, blocks in enumerate(INVERTED_RESIDUALS, start=1):
        convs = CONVS[1:] if layer == 1 else CONVS  # the first expands nothing
        for block in range(blocks):
            for i, name in enumerate(convs):
                # torchvision has no module around the last conv and its norm
                torchvisions = (i, i + 1) if name == CONVS[-1] else (f'{i}.0', f'{i}.1')
                for part, place in zip(PARTS, torchvisions):
                    ours = f'layer{layer}.{block}.{name}.{part}'
                    names[f'features.{index}.conv.{place}'] = ours
                    names[f'layer{layer}.{block}.conv.{i}.{part}'] = ours
            index += 1
    for place, name in ((0, 'conv1'), (index, 'conv2')):
        for i, part in enumerate(PARTS):
            names[f'features.{place}.{i}'] = f'{name}.{part}'
    return names


MMDET_NAMES = _mobilenet_names()


def _mmdet_name(name: str) -> str:
    # of ConvNeXt's authors
    name = name.replace('.dwconv.', '.depthwise_conv.')
    layer, _, leaf = name.replace('.pwconv', '.pointwise_conv').rpartition('.')
    return f'{MMDET_NAMES.get(layer, layer)}.{leaf}' if layer else name
