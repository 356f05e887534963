"""Images on which detectors differ, and boxes that are right and wrong."""

import base64

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from tiny import loader_cfg
from torch import nn

from mmcr.report.pages.detections import SIDE, compared, count_right, shown

FIRST, SECOND = [0, 0, 10, 10], [20, 20, 30, 30]


def objects(*bboxes, labels, ignored):
    return InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32),
        labels=torch.tensor(labels),
        ignored=torch.tensor(ignored),
    )


def found(*bboxes, labels):
    return InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=int),
        scores=torch.full((len(labels),), 0.9),
    )


@pytest.mark.parametrize(
    'said, right, wrong',
    [
        (found(FIRST, labels=[0]), 1, 0),
        (found(FIRST, labels=[1]), 0, 1),  # of another class
        (found(FIRST, FIRST, labels=[0, 0]), 1, 1),  # one box an object
        (found([0, 0, 10, 4], labels=[0]), 0, 1),
        (found(SECOND, labels=[0]), 0, 0),  # it is to be ignored
        (found(labels=[]), 0, 0),
    ],
)
def test_right_and_wrong_boxes(said, right, wrong):
    there = objects(FIRST, SECOND, labels=[0, 0], ignored=[False, True])
    assert count_right(there, said) == (right, wrong)


class Told(nn.Module):
    """A detector that is told what there is; it says only the first so many."""

    def __init__(self, dataset, most, score=0.9):
        super().__init__()
        infos = map(dataset.get_data_info, range(len(dataset)))
        self.known = {info['img_id']: info['instances'] for info in infos}
        self.most, self.score = most, score

    def test_step(self, data):
        (sample,) = data['data_samples']
        known = self.known[sample.img_id][: self.most]
        labels = [each['bbox_label'] for each in known]
        said = found(*(each['bbox'] for each in known), labels=labels)
        said.scores[:] = self.score
        return [DetDataSample(pred_instances=said)]


@pytest.fixture(scope='module')
def dataset(shapes, quiet_mmdet):
    return DATASETS.build(loader_cfg(shapes, 'archval')['dataset'])


def test_the_images_that_differ_most_come_first(dataset, monkeypatch):
    monkeypatch.setattr('mmcr.report.pages.detections.SHOWN', 3)
    detectors = dict(baseline=Told(dataset, 1), found=Told(dataset, 99))
    images = compared(detectors, dict.fromkeys(detectors, dataset))
    counts = [len(image.objects) for image in images]
    assert len(images) == len(dataset) and len(set(counts)) > 1
    seen = shown(images, dataset)
    assert seen['images'] == seen['of'] == len(dataset)
    assert seen['objects'] == sum(counts)
    assert seen['counts'] == dict(baseline=[len(counts), 0], found=[sum(counts), 0])
    most = [each['objects'] for each in seen['shown']]
    assert most == sorted(counts, reverse=True)[:3]
    first = seen['shown'][0]
    assert first['counts'] == dict(baseline=(1, 0), found=(most[0], 0))
    drawn = {}
    for name, jpeg in first['pictures'].items():
        pixels = np.frombuffer(base64.b64decode(jpeg), np.uint8)
        drawn[name] = cv2.imdecode(pixels, cv2.IMREAD_COLOR)
        assert max(drawn[name].shape) == SIDE
    assert list(drawn) == ['baseline', 'found', 'objects']
    assert np.abs(drawn['found'].astype(int) - drawn['baseline']).max() > 50


def test_what_does_not_differ_is_not_shown(dataset):
    detectors = dict(baseline=Told(dataset, 0), found=Told(dataset, 9, score=0.2))
    sets = dict.fromkeys(detectors, dataset)
    seen = shown(compared(detectors, sets), dataset)
    assert seen['shown'] == [] and seen['counts']['found'] == [0, 0]


def test_images_are_taken_evenly(dataset, monkeypatch):
    monkeypatch.setattr('mmcr.report.pages.detections.LOOKED_AT', 3)
    images = compared(dict(baseline=Told(dataset, 0)), dict(baseline=dataset))
    last = len(dataset) - 1
    paths = [dataset.get_data_info(i)['img_path'] for i in (0, last // 2, last)]
    assert [image.path for image in images] == paths
