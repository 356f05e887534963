_base_ = './supernet_r50.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.ExhaustiveSearcher'),
    budget=16,
    final_backbone=dict(base_channels=64))
