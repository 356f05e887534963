# CR_ARCH: the stage architecture to refine, a found best_arch.py in the
# place of the published one.
_base_ = ['./supernet_r18.py', '{{$CR_ARCH:../_base_/archs/r18_stage-cr.py}}']

model = dict(
    backbone=dict(
        supernet='operation',
        stage_choices=None,
        stage_blocks=_base_.cr_backbone.stage_blocks))
