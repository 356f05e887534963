# The supernet of X50 again, under ResNeXt-101's budget.
_base_ = './stage_search_x50.py'

test_cfg = dict(budget=33, final_backbone=dict(depth=101))
