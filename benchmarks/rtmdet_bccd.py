# RTMDet, end to end, on photographs: the blood cells of BCCD (MIT; 205 images to train
# on, 87 to score on, 72 to test on), laid out as for fcos_bccd.py.
_base_ = './rtmdet_shapes.py'

data_root = 'data/bccd/'
data = dict(
    data_root=data_root,
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
)
scale = (160, 120)
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = scale
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = scale
train_dataloader = dict(
    dataset=dict(ann_file='train.json', pipeline=train_pipeline, **data)
)
test_dataloader = dict(
    dataset=dict(ann_file='test.json', pipeline=test_pipeline, **data)
)
val_dataloader = test_dataloader
val_evaluator = dict(ann_file=data_root + 'test.json')
test_evaluator = val_evaluator
model = dict(bbox_head=dict(num_classes=3))

# Few images, so many epochs.
max_epochs, longer = 60, 90
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1]['end'] = max_epochs
reallocation = dict(
    archval=data_root + 'val.json',
    supernet=dict(
        train_cfg=dict(max_epochs=longer, val_interval=longer),
        param_scheduler=[param_scheduler[0], dict(param_scheduler[1], end=longer)],
    ),
)
