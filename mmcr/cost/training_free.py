"""Scores of an architecture without any training: what a supernet must beat."""

from collections.abc import Mapping, Sequence
from math import log
from operator import mul

from torch import nn

from mmcr.cost.units import build_fixed, count
from mmcr.space import Arch

SCALE_WEIGHTS = (1, 1, 6)  # of the last three outputs (C3, C4, C5); MAE-DET's


def training_free_scores(
    backbone: nn.Module, final_backbone: Mapping, archs: Sequence[Arch]
) -> dict[str, dict[Arch, float]]:
    """Scores of each architecture by name of the score; larger is better.

    Args:
        backbone: A searchable backbone in supernet mode whose choices are stages.
        final_backbone: As `count` takes it.
        archs: Complete members of its space.
    """
    parameters = count(backbone, final_backbone, 'params')
    last = backbone.space.choices[-1].name
    return {
        'parameters': {arch: parameters.total(arch) for arch in archs},
        'blocks of the last stage': {arch: arch[last] for arch in archs},
        'multi-scale entropy': {
            arch: multi_scale_entropy(build_fixed(backbone, final_backbone, arch))
            for arch in archs
        },
    }


def multi_scale_entropy(net: nn.Module) -> float:
    """Entropy per element of the last three outputs, weighted, up to a constant.

    The principle of MAE-DET (Sun et al., ICML 2022): of networks that cost alike, the
    one whose features have the larger differential entropy under Gaussian weights and
    images. Of a chain without norms and shortcuts that is half the logarithm of the
    variance, which each convolution multiplies by its fan-in and the ReLU before it
    halves. It is counted, not sampled, and with a ReLU before every convolution, also
    where there is none (before the stem and the blocks of MobileNetV2).

    Args:
        net: A fixed network of a searchable backbone; its weights do not matter.
    """
    entropy, outputs = 0.0, []
    for step in net.steps():
        for module in step.modules:
            for name, conv in module.named_modules():
                if isinstance(conv, nn.Conv2d) and 'downsample' not in name:
                    entropy += 0.5 * log(conv.weight[0].numel() / 2)
        if step.is_output:
            outputs.append(entropy)
    return sum(map(mul, reversed(SCALE_WEIGHTS), reversed(outputs)))
