"""RoIAlign as a look-up gives what mmcv's gives."""

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmcr.scoring.roi_align import fast_roi_align

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
    with torch.no_grad(), fast_roi_align(layer_with_weights(layer)):
        assert 'forward' in vars(layer)
        for given in (features, features.contiguous(memory_format=torch.channels_last)):
            found = layer(given, rois)
            assert found.shape == wanted.shape and found.is_contiguous()
            torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert 'forward' not in vars(layer)


def layer_with_weights(*layers):
    return nn.ModuleList([nn.Linear(1, 1), *layers])


def test_what_it_does_not_compute_is_left_to_mmcv():
    layer, largest = RoIAlign(7, 1 / 4), RoIAlign(7, 1 / 4, pool_mode='max')

    class Own(RoIAlign):
        pass

    own = Own(7, 1 / 4)
    with fast_roi_align(layer_with_weights(layer, largest, own)):
        assert 'forward' in vars(layer)
        assert 'forward' not in {*vars(largest), *vars(own)}
        features = torch.randn(2, 6, HEIGHT, WIDTH, requires_grad=True)
        layer(features, regions()).sum().backward()  # training goes on as before
        assert features.grad.abs().sum() > 0
        with torch.no_grad():
            double = layer(features.double(), regions().double())
        assert double.dtype == torch.float64


def test_a_model_comes_back_after_an_error():
    layer = RoIAlign(7, 1 / 4)
    with (
        pytest.raises(KeyError),
        fast_roi_align(layer_with_weights(layer)),
    ):
        raise KeyError
    assert 'forward' not in vars(layer)
