_base_ = './supernet_r18.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.ExhaustiveSearcher'),
    budget=8,
    final_backbone=dict(base_channels=64))
