_base_ = 'train.py'
experiment_name = 'test1'
load_from = 'supernet.pth'
work_dir = 'search'
test_cfg = dict(
    calibration_dataloader=_base_.train_dataloader,
    calibration_images=5,
    searcher=dict(type='mmcr.ExhaustiveSearcher'),
    type='mmcr.ArchSearchLoop',
    workers=0,
)
test_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file='archval.json',
        data_prefix=dict(img='archval/'),
        data_root='shapes/',
        metainfo=_base_.train_dataloader.dataset.metainfo,
        pipeline=_base_.train_dataloader.dataset.pipeline,
        serialize_data=False,
        test_mode=True,
        type='CocoDataset',
    ),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = dict(
    ann_file='shapes/archval.json',
    iou_thrs=[0.05, 0.1, 0.2, 0.3],
    type='mmcr.UnroundedCocoMetric',
)
