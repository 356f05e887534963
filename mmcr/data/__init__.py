"""Data: the embedded shapes, the archtrain/archval split, checks of both."""

from .checks import check_classes, check_config, check_disjoint
from .coco import DataError, read_coco
from .shapes import CLASSES, write_shapes
from .split import split_coco

__all__ = [
    'CLASSES',
    'DataError',
    'check_classes',
    'check_config',
    'check_disjoint',
    'read_coco',
    'split_coco',
    'write_shapes',
]
