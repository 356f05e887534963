# DetNAS: at most 300M multiply-accumulates of the backbone at 224x224, 1,000 of 4^20
# architectures, norms from 4,000 training images. Found networks shuffle like those
# that were trained alone.
_base_ = './supernet_fpn_300m_coco.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.EvolutionSearcher'),
    budget=dict(type='macs', limit=300e6, shape=(224, 224)),
    calibration_images=4000,
    final_backbone=dict(shuffle=2))
