_base_ = './supernet_mobilenetv2.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.ExhaustiveSearcher'),
    budget=16,
    final_backbone=dict(widen_factor=1.0))
