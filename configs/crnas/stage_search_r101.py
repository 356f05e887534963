# The supernet of R50 again, under ResNet-101's budget.
_base_ = './stage_search_r50.py'

test_cfg = dict(budget=33, final_backbone=dict(depth=101))
