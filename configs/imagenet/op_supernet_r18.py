# Refines the published stage architecture; tools/reallocate.py refines the one that
# it has found.
_base_ = ['./supernet_r18.py', '../_base_/archs/r18_stage-cr.py']

model = dict(
    backbone=dict(
        supernet='operation',
        stage_choices=None,
        stage_blocks=_base_.cr_backbone.stage_blocks))
