"""mmcr: where should a detector's backbone spend its computation?

CR-NAS (computation reallocation for object detection, ICLR 2020) on top of
mmdet, mmengine and torch. Importing this package imports none of them.
"""

__version__ = '0.1.0'
