"""The own data sets of the README, as they stand there."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcr.data.checks import check_config
from mmcr.engine.launch import read_config
from mmcr.workflow.baseline import understand
from mmcr.workflow.datasets import search_data

README = Path(__file__).parents[2] / 'README.md'
BLOCKS = re.findall(r'```python\n(.*?)```', README.read_text(), re.S)
pytestmark = pytest.mark.usefixtures('quiet_mmdet')


def write_set(ann_file, folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    images = [
        dict(id=i, file_name=f'{ann_file.stem}{i}.png', width=64, height=48)
        for i in range(count)
    ]
    for image in images:
        path = str(folder / image['file_name'])
        assert cv2.imwrite(path, np.zeros((48, 64, 3), np.uint8))
    annotations = [
        dict(id=i, image_id=i, category_id=i % 2, bbox=[4, 4, 20, 20], area=400)
        for i in range(count)
    ]
    for annotation in annotations:
        annotation['iscrowd'] = 0
    categories = [dict(id=0, name='cat'), dict(id=1, name='dog')]
    content = dict(images=images, annotations=annotations, categories=categories)
    ann_file.write_text(json.dumps(content))


def test_there_are_two_of_five_lines():
    assert len(BLOCKS) == 2
    assert all(len(block.splitlines()) == 1 + 5 for block in BLOCKS)
    assert len(README.read_text().split()) <= 800


@pytest.mark.parametrize('block', BLOCKS, ids=['one folder', 'two folders'])
def test_own_data(block, tmp_path):
    root = tmp_path / 'data/mine'
    config = tmp_path / 'mine.py'
    config.write_text(block.replace('data/mine/', f'{root}/'))
    cfg = read_config(config)
    for loader, count in ((cfg.train_dataloader, 8), (cfg.val_dataloader, 3)):
        dataset = loader.dataset
        write_set(root / dataset.ann_file, root / dataset.data_prefix.img, count)
    check_config(cfg)
    assert understand(cfg).stage_blocks == (3, 4, 6, 3)
    data = search_data(cfg, 2, tmp_path / 'work')
    assert data.summary.startswith('8 images in 1 set: 6 to train on, 2 to score on')
