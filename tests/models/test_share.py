"""Stage supernets whose choices share their first blocks."""

import pytest
import torch
from baselines import MOBILE, R18, R50, outputs, reallocated, source
from mmdet.registry import MODELS
from nets import SUPERNETS, build, equal, fixed_of, images, in_mode, on_path
from tiny import STAGE, build_detector, write_checkpoint
from torch.nn.modules.batchnorm import _BatchNorm

from mmcr.models import CRMobileNetV2, CRResNet, path_state_dict, reallocate
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.models.weights.compatibility import check_supernet_checkpoint
from mmcr.scoring.bn_calibrator import BNCalibrator
from mmcr.scoring.paths import run_paths
from mmcr.space import stage_arch

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

PREFIX = [name for name in SUPERNETS if 'prefix' in name]


def blocks_in(net, kind):
    return sum(type(module).__name__ == kind for module in net.modules())


def test_blocks_of_the_papers_spaces():
    nets = [
        CRResNet(50, supernet='stage', share=share, base_channels=4)
        for share in ('branch', 'prefix')
    ]
    assert [blocks_in(net, 'Bottleneck') for net in nets] == [307, 60]
    assert nets[0].space.choices == nets[1].space.choices
    net = CRMobileNetV2(supernet='stage', share='prefix', widen_factor=0.25)
    assert blocks_in(net, 'InvertedResidual') == 5 + 5 + 7 + 6 + 6 + 2


@pytest.mark.parametrize('name', PREFIX)
def test_a_smaller_choice_is_the_beginning_of_a_larger_one(name):
    net = build(SUPERNETS[name])
    few, many = (
        stage_arch([pick(choice.values) for choice in net.space.choices])
        for pick in (min, max)
    )
    assert on_path(net, few) < on_path(net, many)
    assert on_path(net, many) == {key for key, _ in net.named_parameters()}
    larger = path_state_dict(net, many)
    for key, tensor in path_state_dict(net, few).items():
        assert tensor.data_ptr() == larger[key].data_ptr()
    # the fixed networks are those of the other mode
    other = build(SUPERNETS[name], share='branch')
    assert net.arch_cfg(net.arch) == other.arch_cfg(net.arch)


def test_a_shared_block_has_statistics_for_every_path_before_it():
    net = build(SUPERNETS['r18-prefix-stage'])
    # the first block of stage 2 is one module; what it sees depends on stage 1
    archs = [stage_arch((1, 1, 1, 1)), stage_arch((3, 2, 1, 1))]
    norms = BNCalibrator(net)
    batches = [images(seed=seed) for seed in range(2)]
    todo = [(j, dict(inputs=batch)) for j, batch in enumerate(batches)]
    norms.calibrate(archs, todo, len(batches))
    net.eval()
    found = {}
    for members, _ in run_paths(net, archs, images(), norms.run_calibrated):
        block = net.layer2.options['chain'][0]
        found[members[0]] = block.bn1.running_mean.clone()
    assert not torch.allclose(found[0], found[1], rtol=0.01)
    for index, arch in enumerate(archs):
        alone = fixed_of(in_mode(net, True), arch)
        for norm in alone.modules():
            if isinstance(norm, _BatchNorm):
                norm.reset_running_stats()
                norm.momentum = None  # the average of all batches
        with torch.no_grad():
            for batch in batches:
                alone(batch)
        torch.testing.assert_close(found[index], alone.layer2[0].bn1.running_mean)


@pytest.mark.parametrize(
    'cfg, baseline',
    [(R18, (2, 2, 2, 2)), (R50, (3, 4, 6, 3)), (MOBILE, (2, 3, 4, 3, 3))],
    ids=('r18', 'r50', 'mobilenetv2'),
)
def test_public_weights_start_the_chain(cfg, baseline):
    choices = {f'stage{i}': (1, n, n + 1) for i, n in enumerate(baseline, 1)}
    net = reallocated(cfg, supernet='stage', share='prefix', stage_choices=choices)
    report = reallocate(source(cfg).state_dict(), net)
    assert [c.new for c in report.chains if 'chain' in c.name] == [1] * len(baseline)
    net.set_arch(stage_arch(baseline))
    assert equal(outputs(net), outputs(source(cfg)))


@pytest.mark.parametrize('mode', ('operation', None))
def test_other_networks_have_nothing_to_share(mode):
    branch, prefix = (
        CRResNet(18, supernet=mode, share=share, base_channels=4)
        for share in ('branch', 'prefix')
    )
    assert branch.state_dict().keys() == prefix.state_dict().keys()


@pytest.mark.parametrize('given, wanted', [('branch', 'prefix'), ('prefix', 'branch')])
def test_a_checkpoint_of_the_other_mode_is_refused(tmp_path, given, wanted):
    path = tmp_path / 'supernet.pth'
    write_checkpoint(path, dict(STAGE, share=given))
    fitting, other = (
        build_detector(dict(STAGE, share=share)) for share in (given, wanted)
    )
    check_supernet_checkpoint(fitting, path)
    with pytest.raises(CheckpointError, match='another space.*share=.*config that'):
        check_supernet_checkpoint(other, path)


@pytest.mark.parametrize('given, wanted', [('branch', 'prefix'), ('prefix', 'branch')])
def test_weights_of_the_other_mode_start_nothing(tmp_path, given, wanted):
    """Only the stem has the same names: the stages would stay random."""
    cfg = dict(R18, type='mmcr.CRResNet', supernet='stage')
    weights = MODELS.build(dict(cfg, share=given)).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
    start = dict(type='Pretrained', checkpoint=f'{tmp_path}/other.pth')
    net = MODELS.build(dict(cfg, share=wanted, init_cfg=start))
    with pytest.raises(CheckpointError, match='missing, .* another share='):
        net.init_weights()
    fixed = MODELS.build(dict(R18, type='mmcr.CRResNet', init_cfg=start))
    with pytest.raises(CheckpointError, match='fixed (.|\n)*extract_subnet'):
        fixed.init_weights()
    MODELS.build(dict(cfg, share=given, init_cfg=start)).init_weights()


def test_modes_agree_where_there_is_one_choice_per_stage():
    one = {f'stage{i}': (n,) for i, n in enumerate((1, 2, 1, 2), 1)}
    cfg = dict(R18, type='mmcr.CRResNet', supernet='stage', stage_choices=one)
    branch, prefix = (MODELS.build(dict(cfg, share=s)) for s in ('branch', 'prefix'))
    arch = stage_arch((1, 2, 1, 2))
    prefix.load_state_dict(dict(zip(prefix.state_dict(), branch.state_dict().values())))
    assert equal(path_state_dict(branch, arch), path_state_dict(prefix, arch))
    assert equal(branch(images()), prefix(images()))
