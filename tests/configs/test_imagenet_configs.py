"""ImageNet pre-training: the recipe, and, where mmpretrain is installed, that it runs.

Reading a config needs no mmpretrain; building a classifier needs onedl-mmpretrain
and torchvision, which it imports.
"""

import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from config_files import CONFIGS, on_meta, read, slow_if
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from nets import equal
from scripts import ROOT, run_script

NETWORKS = ('mobilenetv2', 'r18', 'r50', 'r101', 'x50', 'x101')
LEAVES = sorted(f'imagenet/{path.name}' for path in (CONFIGS / 'imagenet').glob('*.py'))
DETNAS = [name for name in LEAVES if 'detnas' in name]
CRNAS = [name for name in LEAVES if 'detnas' not in name]
SUPERNETS = [name for name in LEAVES if 'supernet' in name]


@pytest.fixture
def in_mmpretrain(quiet_mmdet):
    pytest.importorskip(
        'mmpretrain.models', reason='onedl-mmpretrain and torchvision are optional'
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def test_every_network_and_supernet_can_be_pretrained():
    expected = [f'imagenet/cr-{key}_150e_imagenet.py' for key in NETWORKS]
    expected += [f'imagenet/op_supernet_{key}.py' for key in NETWORKS]
    expected += [
        f'imagenet/{path.name}' for path in (CONFIGS / 'crnas').glob('supernet_*.py')
    ]
    expected += DETNAS
    assert sorted(expected) == LEAVES


@pytest.mark.parametrize('name', CRNAS)
def test_trains_by_the_paper(name):
    """CR-NAS, Sec. 4.1: 150 epochs, batch 1024, cosine from 0.4, SyncBN."""
    cfg = read(name)
    assert cfg.train_cfg.max_epochs == 150
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0001
    )
    assert cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_dataloader.batch_size * 8 == 1024
    assert cfg.sync_bn == 'torch'
    assert cfg.model.backbone.norm_eval is False
    assert cfg.model.backbone.get('frozen_stages', -1) == -1
    assert cfg.default_scope == 'mmpretrain'
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.split) == ('ImageNet', 'train')
    assert cfg.model.head.num_classes == 1000
    is_supernet = name in SUPERNETS
    wrapper = dict(type='mmcr.ActivePathDDP') if is_supernet else None
    assert cfg.get('model_wrapper_cfg') == wrapper
    hooks = [hook.type for hook in cfg.get('custom_hooks', [])]
    kinds = 'ArchSamplingHook', 'ExactResumeHook', 'PathLogHook'
    assert hooks == [f'mmcr.{kind}' for kind in kinds] * is_supernet
    if is_supernet:
        assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    else:
        assert cfg.val_dataloader.dataset.split == 'val'


def test_learning_rate():
    """Up for five epochs, then a cosine that starts at 0.4 and ends at 0."""
    cfg = read('imagenet/supernet_r50.py')
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    length = 4  # iterations of an epoch
    given = dict(optimizer=optimizer, epoch_length=length)
    schedulers = [
        PARAM_SCHEDULERS.build(part, default_args=given) for part in cfg.param_scheduler
    ]
    rates = [optimizer.param_groups[0]['lr']]
    for _ in range(cfg.train_cfg.max_epochs * length):
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        rates.append(optimizer.param_groups[0]['lr'])
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.04)
    assert rates[top] == pytest.approx(0.4) and top in (5 * length - 1, 5 * length)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[(5 + 150) * length // 2] == pytest.approx(0.2, abs=0.002)
    assert rates[-1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize('name', LEAVES)
def test_head_takes_the_last_output(name, quiet_mmdet):
    model = read(name).model
    assert model.head.in_channels == on_meta(model.backbone).out_channels[-1]


@pytest.mark.parametrize('name', CRNAS)
def test_pretrains_what_the_detector_has(name):
    """The same backbone, so that its checkpoint fits to the last tensor."""
    stem = Path(name).stem
    detector = f'crnas/{stem}.py'
    if name not in SUPERNETS:
        network = stem.removesuffix('_150e_imagenet')
        detector = f'faster_rcnn/faster-rcnn_{network}_fpn_1x_coco.py'
    assert read(name).model.backbone == read(detector).model.backbone


def test_mmcrs_types_from_a_scope_beside_mmdets():
    # a process of its own: nothing but the type's scope names mmcr
    code = """
from mmengine.registry import HOOKS, MODELS, WEIGHT_INITIALIZERS, DefaultScope, Registry
for root in (MODELS, HOOKS, WEIGHT_INITIALIZERS):
    Registry(root.name, parent=root, scope='beside')
DefaultScope.get_instance('test', scope_name='beside')
net = MODELS.build(dict(type='mmcr.CRResNet', depth=18, base_channels=8))
hook = HOOKS.build(dict(type='mmcr.ArchSamplingHook'))
init = WEIGHT_INITIALIZERS.build(dict(type='mmcr.ReallocatedInit', checkpoint='x'))
print(*(type(built).__module__ for built in (net, hook, init)))
"""
    done = run_script('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [
        'mmcr.models.backbones.resnet',
        'mmcr.training.sampling_hook',
        'mmcr.models.weights.reallocate',
    ]


@pytest.mark.parametrize('name', slow_if(LEAVES, '*101*', '*x50*'))
def test_trains_and_predicts(name, in_mmpretrain):
    from mmpretrain.structures import DataSample

    cfg = read(name)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if name in SUPERNETS:
        model.backbone.set_arch(model.backbone.space.sample(random.Random(0)))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    data = dict(
        inputs=list(images),
        data_samples=[DataSample().set_gt_label(label) for label in (3, 7)],
    )
    model.eval()
    with torch.no_grad():
        found = model.test_step(data)
    for sample in found:
        assert sample.pred_score.shape == (1000,)
        assert sample.pred_score.sum() == pytest.approx(1, abs=1e-4)
    model.train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = model.train_step(data, optim_wrapper)
    assert torch.isfinite(losses['loss'])
    momenta = optim_wrapper.optimizer.state  # of what got a gradient
    learned = [parameter in momenta for parameter in model.backbone.parameters()]
    assert any(learned)
    assert all(learned) != (name in SUPERNETS)


def test_pretrained_supernet_starts_the_detector(tmp_path, in_mmpretrain):
    """tools/train.py with mmpretrain, then `Pretrained` with prefix backbone."""
    rng, names = np.random.default_rng(0), [f'{i}.jpg' for i in range(8)]
    (tmp_path / 'train').mkdir()
    for name in names:
        image = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'train' / name), image)
    lines = [f'{name} {i}\n' for i, name in enumerate(names)]
    (tmp_path / 'train.txt').write_text(''.join(lines))
    checkpoint = tmp_path / 'work/epoch_1.pth'
    options = [
        'max_epochs=1',
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        f'train_dataloader.dataset.data_root={tmp_path}',
        'train_dataloader.dataset.ann_file=train.txt',
        'train_dataloader.dataset.data_prefix=train',
        'model.backbone.base_channels=4',
        'model.backbone.stem_channels=8',
        'model.head.in_channels=32',
    ]
    where = '--work-dir', checkpoint.parent
    config = CONFIGS / 'imagenet/supernet_r18.py'
    done = run_script(
        ROOT / 'tools/train.py', config, *where, '--cfg-options', *options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    init = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    backbone = read('crnas/supernet_r18.py').model.backbone
    backbone.update(base_channels=4, stem_channels=8, init_cfg=init)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detectors = MODELS.build(backbone)
        detectors.init_weights()
    saved = torch.load(checkpoint, map_location='cpu', weights_only=False)
    assert saved['arch_sampling'] == dict(seed=0)
    trained = {
        key.removeprefix('backbone.'): value
        for key, value in saved['state_dict'].items()
        if key.startswith('backbone.')
    }
    assert equal(trained, detectors.state_dict())
