"""What `reallocate.py` writes for hosts whose backbone is a ResNet, or gets one."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from tiny import CLASSES

from mmcr.engine.launch import read_config
from mmcr.models.detector import check_levels
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.settings import settings_of

from .shrunk import is_resnet, mmdets, searchable, theirs

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

HOSTS = (
    'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'dino/dino-4scale_r50_8xb2-12e_coco',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
    'yolox/yolox_s_8xb8-300e_coco',
    'retinanet/retinanet_r50_fpn_1x_coco',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'atss/atss_r50_fpn_1x_coco',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
)


def on_shapes(host: Config, root) -> Config:
    """The host's config on the tests' data, in whatever wrappers it has."""

    def placed(dataset, split):
        for inner in dataset.get('datasets') or [dataset.get('dataset')]:
            if inner:
                placed(inner, split)
        if 'ann_file' in dataset:
            dataset.update(
                type='CocoDataset',
                data_root=f'{root}/',
                ann_file=f'{split}.json',
                data_prefix=dict(img=f'{split}/'),
                metainfo=dict(classes=CLASSES),
            )

    placed(host.train_dataloader.dataset, 'archtrain')
    for name in ('val', 'test'):
        placed(host[f'{name}_dataloader'].dataset, 'archval')
        metrics = host[f'{name}_evaluator']
        metrics = metrics[0] if isinstance(metrics, list) else metrics
        metrics.update(ann_file=f'{root}/archval.json', format_only=False)
        host[f'{name}_evaluator'] = metrics
    if not is_resnet(host):  # as a user writes it who wants a ResNet
        own = searchable(host)
        own['type'] = own['type'].removeprefix('mmcr.CR')
        channels = [256, 512, 1024, 2048]
        host.model.backbone = ConfigDict(own)
        host.model.neck.in_channels = [channels[i] for i in own['out_indices']]
    return host


@pytest.mark.parametrize(
    'name',
    [*HOSTS[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in HOSTS[3:])],
)
def test_what_is_written_fits_the_host(name, shapes, tmp_path):
    host = on_shapes(mmdets(name), shapes)
    strides = theirs(host)[1]
    settings = settings_of(dict(archval=3))
    work = Reallocation(host, 'host', tmp_path, settings)
    work.write()
    for step in ('01_stage_supernet', '02_stage_search', '03_op_supernet'):
        path = tmp_path / step / 'config.py'
        text = path.read_text()
        if '_base_ = ' in text:  # what a search will have found
            (tmp_path / '02_stage_search/best_arch.py').write_text(
                'cr_backbone = dict(stage_blocks=(2, 3, 4, 5))\n'
            )
        model = read_config(path).model
        with torch.device('meta'):
            backbone = MODELS.build(model.backbone)
        assert list(backbone.out_strides) == strides
        check_levels(MODELS.build(model))
    found = read_config(tmp_path / 'networks/stage_cr/config.py').model.backbone
    assert found.stage_blocks == (2, 3, 4, 5)
    defaults = dict(out_indices=(0, 1, 2, 3), style='pytorch', norm_eval=True)
    for key, default in defaults.items():
        assert found.get(key, default) == host.model.backbone.get(key, default), key
