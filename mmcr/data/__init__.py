"""Data: the embedded shapes, the archtrain/archval split, checks of both."""

from .checks import check_config
from .coco import DataError, read_coco
from .figures import CLASSES
from .shapes import write_shapes
from .split import split_coco

__all__ = [
    'CLASSES',
    'DataError',
    'check_config',
    'read_coco',
    'split_coco',
    'write_shapes',
]
