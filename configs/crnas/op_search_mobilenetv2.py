_base_ = './op_supernet_mobilenetv2.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.GreedySearcher', k=3),
    final_backbone=dict(widen_factor=1.0))
