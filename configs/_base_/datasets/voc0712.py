# Trains on the trainval sets of 2007 and 2012, tests on the test set of 2007.
_base_ = 'mmdet::_base_/datasets/voc0712.py'

# an epoch of mmdet's is three passes
train_dataloader = dict(dataset=dict(times=1))
