_base_ = './supernet_fpn_300m_voc.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.EvolutionSearcher'),
    budget=dict(type='macs', limit=300e6, shape=(224, 224)),
    calibration_images=2000,
    final_backbone=dict(shuffle=2),
    **_base_.scored)
