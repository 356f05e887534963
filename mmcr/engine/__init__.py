"""Training, scoring and search as loops of an mmengine Runner."""

from mmcr.engine.archval_loop import ArchValLoop
from mmcr.engine.search_loop import ArchSearchLoop

__all__ = ['ArchSearchLoop', 'ArchValLoop']
