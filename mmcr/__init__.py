"""mmcr: where should a detector's backbone spend its computation?

CR-NAS (computation reallocation for object detection, ICLR 2020) and DetNAS
(NeurIPS 2019) on top of mmdet, mmengine and torch. Importing this package imports
neither torch nor mmdet; of mmengine, which needs neither, it imports the table that
makes ``_base_ = 'mmcr::...'`` known. `mmcr.space` and `mmcr.search` run without all.
"""

__version__ = '0.1.0'

try:
    from mmengine.config.utils import MODULE2PACKAGE
except ImportError:
    pass
else:
    MODULE2PACKAGE['mmcr'] = 'mmcr'
