# The demo's detector for DetNAS, on a narrow ShuffleNetV2.
_base_ = './shapes.py'

max_epochs = 16  # it learns slower than a ResNet
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, milestones=[max_epochs * 3 // 4])

reallocation = dict(
    method='detnas',
    backbone=dict(
        stage_blocks=(2, 2, 4, 2),
        stem_channels=16,
        stage_channels=(32, 64, 128, 256)),
    search=dict(
        searcher=dict(
            population=10, generations=5, top=4, mutations=4, crossovers=4),
        # meets 72% of the paths, as 300M meet 69% of those of DetNAS
        budget=dict(limit=32e6, shape=(192, 192))))
