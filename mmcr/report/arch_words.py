"""Architectures in words."""

from mmcr.report.sketch import DILATIONS, Legend, Network
from mmcr.space import Arch, ArchError, dilations_of, stage_blocks_of


def network_of(arch: Arch, legend: Legend = DILATIONS) -> Network | None:
    """The network that an architecture of stages or of blocks describes, for a sketch.

    Args:
        arch: A complete one, or one that has only its first blocks.
        legend: What values of blocks are, kinds or dilations.
    """
    name = 'Best architecture'
    try:
        return Network(name, stage_blocks_of(arch))
    except ArchError:
        pass
    try:
        values = dilations_of(arch)  # kinds are nested alike
    except ArchError:
        return None
    return Network(name, [len(stage) for stage in values], values, legend=legend)


def arch_text(arch: Arch, legend: Legend = DILATIONS) -> str:
    """Blocks per stage, or of every block a label with a space between stages."""
    network = network_of(arch, legend)
    if network is None:
        return str(arch)
    if network.values is None:
        return str(list(network.stage_blocks))
    return network.text
