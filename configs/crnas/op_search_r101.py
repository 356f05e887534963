_base_ = './op_supernet_r101.py'

test_cfg = dict(
    _delete_=True,
    type='mmcr.ArchSearchLoop',
    searcher=dict(type='mmcr.GreedySearcher', k=3),
    final_backbone=dict(base_channels=64))
