"""Image scales: the sizes in pixels of a config's pipelines."""

import pytest
from mmcv.transforms import Compose
from mmengine.config import Config

from mmcr.data.scales import at_scale, rescaled, sampled_scales, scaled_shape
from mmcr.errors import UserError

RESIZE = dict(type='Resize', scale=(64, 48), keep_ratio=True)
LOAD, FLIP = dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5)


def cfg(pipeline=(LOAD, RESIZE, FLIP), **more):
    dataset = dict(type='CocoDataset', pipeline=list(pipeline))
    loader = dict(dataset=dataset)
    return Config(
        dict(
            model=dict(data_preprocessor=dict(pad_size_divisor=32)),
            **dict(train_dataloader=loader, test_dataloader=loader),
            **more,
        )
    )


@pytest.mark.parametrize(
    'step, other',
    [
        (RESIZE, dict(RESIZE, scale=(32, 24))),
        (
            dict(type='RandomChoiceResize', scales=[(64, 32), (64, 48)]),
            dict(type='RandomChoiceResize', scales=[(32, 32), (32, 24)]),
        ),
        (dict(RESIZE, scale=(1333, 640)), dict(RESIZE, scale=(666, 320))),
        (dict(RESIZE, scale=(1344.0, -1)), dict(RESIZE, scale=(672, -1))),
        (
            dict(type='RandomCrop', crop_type='relative', crop_size=(1, 1.0)),
            dict(type='RandomCrop', crop_type='relative', crop_size=(1, 1.0)),
        ),
        (
            dict(type='RandomAffine', border=(-32, -31), max_rotate_degree=10),
            dict(type='RandomAffine', border=(-16, -16), max_rotate_degree=10),
        ),
        (
            dict(type='Pad', size=(64, 64), pad_val=dict(img=(114, 114, 114))),
            dict(type='Pad', size=(32, 32), pad_val=dict(img=(114, 114, 114))),
        ),
        (dict(type='Pad', size_divisor=32), dict(type='Pad', size_divisor=32)),
        (
            dict(type='RandomOrder', transforms=[RESIZE]),
            dict(type='RandomOrder', transforms=[dict(RESIZE, scale=(32, 24))]),
        ),
        (
            dict(type='MinSize', filter=dict(size=(8, 8))),
            dict(type='MinSize', filter=dict(size=(8, 8))),
        ),
    ],
)
def test_sizes_of_a_transform(step, other):
    assert rescaled(step, 0.5) == other


def test_a_detector_at_another_scale():
    hooks = [dict(type='PipelineSwitchHook', switch_pipeline=[RESIZE])]
    before = cfg(custom_hooks=hooks)
    before.model.data_preprocessor.batch_augments = [
        dict(type='BatchSyncRandomResize', random_size_range=(480, 800), interval=10)
    ]
    before.test_cfg = dict(calibration_dataloader=before.test_dataloader)
    after = at_scale(before, 0.5)
    for part in ('train', 'test'):
        load, resize, flip = after[f'{part}_dataloader'].dataset.pipeline
        assert (load, flip) == (LOAD, FLIP) and resize.scale == (32, 24)
    assert after.custom_hooks[0].switch_pipeline[0].scale == (32, 24)
    (augment,) = after.model.data_preprocessor.batch_augments
    assert augment.random_size_range == (256, 384) and augment.interval == 10
    of_norms = after.test_cfg.calibration_dataloader.dataset
    assert of_norms.pipeline[1].scale == (32, 24)
    assert before.train_dataloader.dataset.pipeline[1].scale == (64, 48)
    assert at_scale(before, 1.0).to_dict() == before.to_dict()
    with pytest.raises(UserError, match='train_dataloader name none'):
        at_scale(cfg((LOAD, FLIP)), 0.5)


def test_a_training_that_draws_scales():
    drawn = sampled_scales(cfg(), [1.0, 0.5, 2.0])
    load, choice, flip = drawn.train_dataloader.dataset.pipeline
    assert (load, flip) == (LOAD, FLIP)
    sizes = [step.scale for (step,) in choice.transforms]
    assert sizes == [(64, 48), (32, 24), (128, 96)]
    assert len(Compose([choice]).transforms) == 1  # as mmcv builds it
    assert drawn.test_dataloader == cfg().test_dataloader
    # inside of what repeats or joins sets
    wrapped = cfg()
    inner = wrapped.train_dataloader.dataset
    wrapped.train_dataloader.dataset = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[inner, inner]),
    )
    for each in sampled_scales(
        wrapped, [1.0, 0.5]
    ).train_dataloader.dataset.dataset.datasets:
        assert each.pipeline[1].type == 'RandomChoice'
    wrapped.train_dataloader.dataset = dict(
        type='mmdet.MultiImageMixDataset', dataset=inner, pipeline=[RESIZE]
    )
    with pytest.raises(UserError, match='CachedMosaic'):
        sampled_scales(wrapped, [1.0, 0.5])
    with pytest.raises(UserError, match='this one names none'):
        sampled_scales(cfg((LOAD,)), [1.0, 0.5])
    own_size = cfg()
    own_size.model.data_preprocessor.batch_augments = [
        dict(type='BatchFixedSizePad', size=(64, 64))
    ]
    with pytest.raises(UserError, match='BatchFixedSizePad'):
        sampled_scales(own_size, [1.0, 0.5])


def test_shapes_are_those_that_a_detector_pads_to():
    assert scaled_shape((800, 1333), 1.0, cfg()) == (800, 1344)
    assert scaled_shape((800, 1333), 0.75, cfg()) == (608, 1024)
    assert scaled_shape((100, 100), 0.5, Config(dict(model=dict()))) == (50, 50)


def test_a_scale_that_changes_nothing_is_refused():
    sized = cfg()
    with pytest.raises(UserError, match='scale of 1.001 leaves .* farther from 1'):
        at_scale(sized, 1.001)
