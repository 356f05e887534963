"""The configs of the tree, each read once for all tests: mmengine takes its time."""

import copy
from functools import cache
from pathlib import Path

from mmengine.config import Config

CONFIGS = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(  # of detectors; pre-training has configs of mmpretrain's form
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
    and path.parent.name not in ('imagenet', 'demo')  # the demo's is plain mmdet
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
