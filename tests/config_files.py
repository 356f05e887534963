"""The configs of the tree, each read once for all tests: mmengine takes its time."""

import copy
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcr.data import write_shapes

CONFIGS = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(  # of detectors; pre-training has configs of mmpretrain's form
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
    and path.parent.name not in ('imagenet', 'demo')  # the demo's is plain mmdet
)


def write_workplace(folder: Path) -> None:
    """The demo's data set, as small as it gets, and a user's config."""
    data = folder / 'data/shapes'
    write_shapes(data, 24, (96, 96), split='train')
    write_shapes(data, 8, (96, 96), split='test')
    (folder / 'mine.py').write_text(
        f"_base_ = '{CONFIGS}/demo/shapes.py'\n"
        'train_cfg = dict(max_epochs=1)\n'
        'val_dataloader = test_dataloader = dict(batch_size=4)\n'
        'cost_shape = (96, 96)\n'
        'reallocation = dict(\n'
        '    _delete_=True, archval=8, width=1.0,\n'
        '    supernet=dict(val_cfg=dict(calibration_images=32, num_minibatches=4)))\n'
    )


def read(name: str) -> Config:
    return copy.deepcopy(_read_once(name))


@cache
def _read_once(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def is_of_search(name: str) -> bool:
    """Whether a leaf is a supernet or a search."""
    folder, file = name.split('/')
    return folder == 'crnas' or file.startswith(('supernet_', 'search_'))


def slow_if(names: list[str], *patterns: str) -> list:
    """Parameters of a test that takes long for the names like one of the patterns."""
    return [
        pytest.param(
            name, marks=[pytest.mark.slow] * any(fnmatch(name, p) for p in patterns)
        )
        for name in names
    ]


def on_meta(cfg: dict):
    """What mmdet builds of a config, without memory for weights."""
    import torch
    from mmdet.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(cfg)
