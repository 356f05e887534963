# A split for searches: the val set of 2007 (2,510 images) scores architectures, the
# train set of 2007 and the trainval set of 2012 train supernets. DetNAS names no split:
# it is ours.
_base_ = './voc0712.py'

voc2007 = _base_.train_dataloader.dataset.dataset.datasets[0]
archtrain = 'VOC2007/ImageSets/Main/train.txt'
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            datasets=[
                dict(voc2007, ann_file=archtrain),
                _base_.train_dataloader.dataset.dataset.datasets[1],
            ])))
val_dataloader = dict(
    batch_size=8, dataset=dict(ann_file='VOC2007/ImageSets/Main/val.txt'))
test_dataloader = val_dataloader

# For the search loops: the training set is a concatenated one.
scored = dict(
    score='pascal_voc/mAP',
    calibration_dataloader=dict(
        batch_size=8,
        num_workers=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            voc2007,
            ann_file=archtrain,
            pipeline=_base_.test_pipeline)))
