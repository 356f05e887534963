"""Layer-wise decay where blocks were reallocated; of a stand-in for mmpretrain's."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmcr.errors import UserError

THEIRS = 'LearningRateDecayOptimizerConstructor'


class ConvNeXtStandIn(nn.Module):
    """The names that mmdet's constructor reads."""

    def __init__(self, blocks, options=0):
        super().__init__()
        self.downsample_layers = nn.ModuleList(nn.Linear(1, 1) for _ in blocks)
        made = [nn.ModuleList(nn.Linear(1, 1) for _ in range(n)) for n in blocks]
        for i in range(options):  # a choice of as many numbers of blocks
            made[2] = nn.ModuleDict(
                dict(options=nn.ModuleDict({str(blocks[2] - i): made[2]}))
            )
        self.stages = nn.ModuleList(made)


class Other(nn.Module):
    pass


def rates(backbone, constructor='mmcr.LayerDecay', **paramwise):
    detector = nn.Module()
    detector.backbone, detector.head = backbone, nn.Linear(2, 2)
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=0.1)
    options = dict(decay_rate=0.5, decay_type='layer_wise', num_layers=6)
    cfg = dict(type='OptimWrapper', constructor=constructor, optimizer=optimizer)
    cfg['paramwise_cfg'] = {**options, **paramwise}
    groups = build_optim_wrapper(detector, cfg).param_groups
    names = {p: name for name, p in detector.named_parameters()}
    return {names[p]: g['lr'] for g in groups for p in g['params'] if p in names}


def test_rates_are_mmdets_for_its_numbers_of_blocks():
    theirs = rates(ConvNeXtStandIn((3, 3, 9, 3)), THEIRS)
    assert len(set(theirs.values())) > 3
    assert rates(ConvNeXtStandIn((3, 3, 9, 3))) == theirs


def test_further_blocks_learn_as_the_last_layer():
    theirs = rates(ConvNeXtStandIn((3, 3, 9, 3)))
    found = rates(ConvNeXtStandIn((3, 3, 20, 3)))
    assert theirs.items() <= found.items()
    assert found['backbone.stages.2.19.weight'] == theirs['backbone.stages.2.8.weight']
    assert max(found.values()) == found['head.weight'] == 1.0


@pytest.mark.parametrize(
    'backbone, paramwise, words',
    [
        (Other(), {}, 'got a Other'),
        (ConvNeXtStandIn((1, 1, 1, 1)), dict(num_layers=None), 'num_layers'),
    ],
)
def test_others_are_refused(backbone, paramwise, words):
    with pytest.raises(UserError, match=words):
        rates(backbone, **paramwise)
