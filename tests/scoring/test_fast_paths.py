"""What is computed faster on a CPU gives what mmcv gives."""

import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from tiny import detector_cfg
from torch import nn

from mmcr.scoring.fast_paths import fast_paths

HEIGHT, WIDTH = 12, 17  # of the features of two images


def regions():
    """Inside, across each border, outside, tiny, flat, and as large as the image."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 80 - 15
    size = torch.rand(40, 2, generator=generator) ** 3 * 90
    image = torch.randint(2, (40, 1), generator=generator).float()
    special = torch.tensor(
        [
            [0, 500, 500, 600, 600],
            [1, -90, -90, -50, -50],
            [1, 8, 8, 8, 8],
            [0, 8, 8, 30, 8],
            [0, 0, 0, 4 * WIDTH, 4 * HEIGHT],
            [1, 4 * WIDTH - 2, 4 * HEIGHT - 2, 4 * WIDTH + 30, 4 * HEIGHT + 30],
        ]
    )
    return torch.cat([torch.cat([image, corner, corner + size], 1), special.float()])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('output_size', [7, (3, 5)])
@pytest.mark.parametrize('count', [46, 0])
def test_gives_what_mmcv_gives(output_size, sampling_ratio, aligned, count):
    layer = RoIAlign(output_size, 1 / 4, sampling_ratio, aligned=aligned)
    features = torch.randn(
        2, 6, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)
    )
    rois = regions()[:count]
    wanted = layer(features, rois)
    with torch.no_grad(), fast_paths(detector_of(layer)):
        assert 'forward' in vars(layer)
        for given in (features, features.contiguous(memory_format=torch.channels_last)):
            found = layer(given, rois)
            assert found.shape == wanted.shape and found.is_contiguous()
            torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert 'forward' not in vars(layer)


def detector_of(*layers):
    model = nn.ModuleList(layers)
    model.with_neck = False
    return model


def test_what_it_does_not_compute_is_left_to_mmcv():
    layer, largest = RoIAlign(7, 1 / 4), RoIAlign(7, 1 / 4, pool_mode='max')

    class Own(RoIAlign):
        pass

    own = Own(7, 1 / 4)
    with fast_paths(detector_of(layer, largest, own)):
        assert 'forward' in vars(layer)
        assert 'forward' not in {*vars(largest), *vars(own)}
        features = torch.randn(2, 6, HEIGHT, WIDTH, requires_grad=True)
        layer(features, regions()).sum().backward()  # training goes on as before
        assert features.grad.abs().sum() > 0
        with torch.no_grad():
            double = layer(features.double(), regions().double())
        assert double.dtype == torch.float64


def with_deformable_convolutions():
    """As mmdet's FPN may have, and after training: their offsets are not zero."""
    cfg = detector_cfg({})
    cfg.neck.conv_cfg = dict(type='DCNv2', deform_groups=1)
    model = MODELS.build(cfg)
    for conv in model.neck.fpn_convs:
        nn.init.normal_(conv.conv.conv_offset.weight)
    return model


def with_an_operator_of_its_own():
    class Neck(FPN):
        pass

    model = MODELS.build(detector_cfg({}))
    model.neck.__class__ = Neck
    return model


@pytest.mark.parametrize(
    'make, fast',
    [
        (lambda: MODELS.build(detector_cfg({})), True),
        (with_deformable_convolutions, False),
        (with_an_operator_of_its_own, False),
    ],
)
def test_channels_last_where_all_operators_know_it(quiet_mmdet, make, fast):
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(2, 3, 64, 64)
    weight = model.backbone.layer1[0].conv1.weight
    with torch.no_grad():
        wanted = model.extract_feat(x)
        with pytest.raises(KeyError), fast_paths(model):
            assert weight.is_contiguous() != fast
            found = model.extract_feat(x)
            assert all(out.is_contiguous() for out in found)
            raise KeyError
    assert weight.is_contiguous() and not model.neck._forward_hooks
    assert not any('forward' in vars(module) for module in model.modules())
    for out, other in zip(found, wanted):
        assert fast or torch.equal(out, other)
        torch.testing.assert_close(out, other, rtol=1e-4, atol=1e-4)
