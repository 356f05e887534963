"""What Swin Transformers have that other backbones have not."""

import copy

import pytest
import torch
from baselines import outputs, reallocated
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from nets import (
    SUPERNETS,
    SWIN,
    build,
    equal,
    fixed_of,
    images,
    in_mode,
    loss_of,
    mmdets,
    randomised,
    some_archs,
)
from torch import nn

from mmcr.cost.latency import latency_table
from mmcr.cost.units import units_of_choices
from mmcr.errors import UserError
from mmcr.models import CRSwin, reallocate
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.space import stage_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

BOTH = ['swin-stage', 'swin-prefix-stage']


def trained(cfg):
    """A network of mmdet's after a training, as good as any."""
    torch.manual_seed(1)
    net = MODELS.build(copy.deepcopy(cfg))
    net.init_weights()
    return in_mode(randomised(net), False)


def rates_of(blocks):
    return [(b.attn.drop.drop_prob, b.ffn.dropout_layer.drop_prob) for b in blocks]


@pytest.mark.parametrize('name', BOTH)
def test_stochastic_depth_of_a_path_is_that_of_its_network(name):
    net = build(SUPERNETS[name], drop_path_rate=0.5)
    for arch in [net.arch, *some_archs(net.space, 3)]:
        net.set_arch(arch)
        depths = list(arch.values())
        theirs = MODELS.build(mmdets(dict(SWIN, depths=depths, drop_path_rate=0.5)))
        for stage, own in zip(theirs.stages, net.stages):
            assert rates_of(own.blocks.active_option) == rates_of(stage.blocks)
        outs = []
        for each in (net, in_mode(fixed_of(net, arch), True)):
            torch.manual_seed(0)
            outs.append(each(images(count=4)))
        assert equal(*outs)
    assert not equal(outs[0], net(images(count=4)))


def test_recomputed_blocks_drop_what_they_dropped():
    """Also where another path, of other rates, has been set since."""
    grads = []
    for with_cp in (False, True):
        net = build(SUPERNETS['swin-prefix-stage'], drop_path_rate=0.8, with_cp=with_cp)
        net.set_arch(stage_arch((3, 2, 3, 2)))
        torch.manual_seed(0)
        loss = loss_of(net(images(count=4)))
        net.set_arch(stage_arch((1, 1, 1, 1)))
        loss.backward()
        parameters = dict(net.named_parameters()).items()
        grads.append({n: p.grad for n, p in parameters if p.grad is not None})
    assert equal(*grads)


@pytest.mark.parametrize('name', BOTH)
def test_windows_are_shifted_by_position(name):
    net = build(SUPERNETS[name])
    chains = [
        list(chain) for stage in net.stages for chain in stage.blocks.options.values()
    ]
    assert max(map(len, chains)) == 3
    for chain in chains:
        assert [b.attn.shift_size for b in chain] == [0, 1, 0][: len(chain)]


def test_a_block_has_no_dilation():
    for option in (
        dict(dilations=(1, 1, 1, 1)),
        dict(dilation_choices=(1, 2)),
        dict(supernet='operation'),
    ):
        with pytest.raises(UserError, match=f"no 3x3 .*{next(iter(option))}.*'stage'"):
            CRSwin(**option)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(depths=(2, 2, 6)), r'depths must hold 4 .*\(2, 2, 6\)'),
        (dict(embed_dims=40), 'num_heads, but stage 1 has 40 channels .* 3 heads'),
        (dict(use_abs_pos_embed=True), 'images of one size'),
        (dict(norm_eval=False), 'takes no norm_eval'),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(UserError, match=words), torch.device('meta'):
        CRSwin(**options)


def test_the_default_space_has_pairs_of_blocks_and_the_baselines_own():
    with torch.device('meta'):
        net = CRSwin(depths=(2, 3, 18, 2), supernet='stage', share='prefix')
    values = [choice.values for choice in net.space.choices]
    assert values[1] == (2, 3, 4, 6, 8) and {2, 6, 18, 24} < set(values[2])
    assert all(n % 2 == 0 for n in (*values[0], *values[2], *values[3]))


def authors_names(weights):
    """As the authors' classifier of the same network has them."""
    named = {}
    for name, w in weights.items():
        if name.startswith('norm'):
            continue
        for ours, theirs in (
            ('stages', 'layers'),
            ('attn.w_msa.', 'attn.'),
            ('ffn.layers.0.0.', 'mlp.fc1.'),
            ('ffn.layers.1.', 'mlp.fc2.'),
            ('projection', 'proj'),
        ):
            name = name.replace(ours, theirs, 1)
        if 'downsample' in name:  # the four patches are in another order
            parts = w.unflatten(-1, (-1, 4)).transpose(-1, -2)
            w = parts[..., [0, 2, 1, 3], :].flatten(-2).contiguous()
        named[name] = w
    named['layers.0.blocks.1.attn_mask'] = torch.zeros(4, 9, 9)
    return {**named, 'norm.weight': torch.ones(64), 'head.weight': torch.zeros(2, 64)}


def without_output_norms(net):
    return {n: w for n, w in net.state_dict().items() if not n.startswith('norm')}


def test_the_authors_checkpoint(tmp_path):
    cfg = dict(mmdets(SWIN), depths=(2, 2, 2, 2))
    before = trained(cfg)
    path = str(tmp_path / 'swin.pth')
    torch.save(dict(model=authors_names(before.state_dict())), path)
    start = dict(
        convert_weights=True, init_cfg=dict(type='Pretrained', checkpoint=path)
    )
    theirs = MODELS.build(ConfigDict(cfg, **start))
    theirs.init_weights()
    with pytest.raises(CheckpointError, match='convert_weights=True'):
        reallocated(cfg, init_cfg=start['init_cfg']).init_weights()
    fixed = reallocated(cfg, **start)
    fixed.init_weights()  # mmdet's own way
    wanted = without_output_norms(before)
    for net in (theirs, fixed):
        assert equal(without_output_norms(net), wanted)
    assert theirs.state_dict().keys() == fixed.state_dict().keys()

    # and blocks are new: by mmcr's
    norms = {n: w for n, w in before.state_dict().items() if n.startswith('norm')}
    init = dict(start['init_cfg'], type='mmcr.ReallocatedInit')
    deeper = dict(stage_blocks=(3, 2, 4, 2), convert_weights=True, init_cfg=init)
    net = reallocated(cfg, **deeper)
    net.init_weights()
    net.load_state_dict(norms, strict=False)
    assert equal(outputs(net), outputs(before))
    report = reallocate(authors_names(before.state_dict()), reallocated(cfg))
    assert report.ignored == dict(norm=1, head=1)
    assert {name.split('.')[0] for name in report.kept} == {
        f'norm{i}' for i in range(4)
    }


def test_a_supernet_starts_as_the_detectors_backbone():
    cfg = mmdets(SWIN)
    before = trained(cfg)
    choices = {f'stage{i}': (1, 2, 3, 4) for i in range(1, 5)}
    for share in ('branch', 'prefix'):
        net = reallocated(cfg, supernet='stage', share=share, stage_choices=choices)
        reallocate(before.state_dict(), net)
        for blocks in (SWIN['depths'], (4, 2, 4, 4)):
            net.set_arch(stage_arch(blocks))
            assert equal(outputs(net), outputs(before))
        # the first step can change what new blocks do
        loss_of(in_mode(net, True)(images())).backward()
        for stage in net.stages:
            last = list(stage.blocks.active_option)[-1]
            for layer in (last.attn.w_msa.proj, last.ffn.layers[1]):
                assert layer.weight.grad.any() and layer.bias.grad.any()


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(embed_dims=16), r'\[8, 16, 32, 64\] channels .* \[16, 32.*embed_dims'),
        (dict(window_size=5), 'relative_position_bias_table.*same windows'),
        (dict(num_heads=(2, 2, 2, 4)), 'stages.0.blocks.0.*table is 25 x 1'),
    ],
)
def test_weights_of_another_swin_are_refused(options, words):
    before = trained(mmdets(SWIN))
    net = reallocated(mmdets(SWIN), **options)
    with pytest.raises(CheckpointError, match=words):
        reallocate(before.state_dict(), net)


def test_plain_and_shifted_blocks_are_timed_each():
    net = MODELS.build(SUPERNETS['swin-stage'])
    units = units_of_choices(net, {}, (64, 64))
    kinds = {(u.kind, u.modules[0].attn.shift_size) for u in units if u.choice}
    assert len(kinds) == len({kind for kind, _ in kinds}) == 2 * 4
    table = latency_table(net, {}, (64, 64), repeats=1, check=1)
    assert all(ms > 0 for row in table.costs.values() for ms in row.values())
    assert table.about['check']['networks'][0]['measured'] > 0


def test_every_output_has_a_norm_that_the_next_stage_does_not_see():
    net = in_mode(build(SWIN, out_indices=(1, 3)), False)
    assert net.out_strides == (8, 32) and net.stage_strides['stage4'] == 32
    before = net(images())
    with torch.no_grad():
        net.norm1.weight.mul_(2)
        net.norm1.bias.mul_(2)
    after = net(images())
    torch.testing.assert_close(after[0], 2 * before[0])
    assert torch.equal(after[1], before[1])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
