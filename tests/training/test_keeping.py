"""What of a pipeline cannot be resumed is said."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmcv.transforms import Compose, RandomApply
from mmdet.datasets.transforms import CachedMixUp, CachedMosaic, Mosaic, RandomFlip

from mmcr.training.resume_hook import _keeping


class Drawing:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, results):
        return results


class Albu(Drawing):
    """As mmdet's: what draws is the library's pipeline inside."""

    def __init__(self):
        self.aug = Drawing()


class MultiBranch(Drawing):
    def __init__(self):
        self.branch_pipelines = dict(strong=Compose([Drawing()]))


@pytest.mark.parametrize(
    'step, names',
    [
        (CachedMosaic(), {'CachedMosaic'}),
        (RandomApply([CachedMixUp(img_scale=(9, 9))]), {'CachedMixUp'}),
        (Drawing(), {'Drawing'}),
        (Albu(), {'Drawing'}),
        (MultiBranch(), {'Drawing'}),
        (Mosaic(), set()),
        (RandomFlip(0.5), set()),
    ],
)
def test_transforms_that_keep_something(step, names):
    steps = Compose([RandomFlip(0.5), step])
    inner = SimpleNamespace(pipeline=steps)
    for dataset in (
        inner,
        SimpleNamespace(datasets=[SimpleNamespace(), inner]),
        SimpleNamespace(dataset=SimpleNamespace(), pipeline=[step]),
        SimpleNamespace(_dataset=SimpleNamespace(dataset=inner)),
    ):
        assert _keeping(dataset) == names
