import json

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric
from tiny import CLASSES

from mmcr.data import write_shapes
from mmcr.engine import UnroundedCocoMetric
from mmcr.errors import UserError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

META = dict(classes=CLASSES)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('coco'), 12, (96, 96), seed=1)


def detections(path, seed, masks=False):
    """Shaken copies of the annotated objects and some inventions, per image."""
    content = json.loads(path.read_text())
    rng = np.random.default_rng(seed)
    samples = []
    for image in content['images']:
        own = [a for a in content['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in own], float)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([a['category_id'] - 1 for a in own])
        boxes = np.concatenate(
            [
                boxes + rng.normal(0, 3, boxes.shape),
                np.sort(rng.uniform(0, 96, (4, 2, 2)), axis=1).reshape(4, 4),
            ]
        )
        labels = np.concatenate([labels, rng.integers(0, len(CLASSES), 4)])
        found = dict(
            bboxes=torch.tensor(boxes),
            labels=torch.tensor(labels),
            scores=torch.tensor(rng.uniform(size=len(boxes))),
        )
        if masks:
            found['masks'] = torch.tensor(np.array([_filled(box) for box in boxes]))
        samples.append(
            dict(img_id=image['id'], ori_shape=(96, 96), pred_instances=found)
        )
    return samples


def _filled(box):
    mask = np.zeros((96, 96), bool)
    x1, y1, x2, y2 = np.clip(np.round(box), 0, 96).astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def values(metric, samples):
    metric.dataset_meta = META
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('kinds', [['bbox'], ['bbox', 'segm']], ids='-'.join)
def test_rounded_it_is_mmdets_metric(coco, seed, kinds):
    samples = detections(coco, seed, masks='segm' in kinds)
    options = dict(ann_file=str(coco), metric=kinds)
    ours = values(UnroundedCocoMetric(**options), samples)
    theirs = values(CocoMetric(**options), samples)
    assert {k: float(f'{v:.3f}') for k, v in ours.items()} == theirs
    assert 0.05 < ours['coco/bbox_mAP'] != theirs['coco/bbox_mAP']
    if 'segm' in kinds:
        assert ours['coco/segm_mAP'] not in (0, ours['coco/bbox_mAP'])


def test_values_are_plain_and_keep_their_precision(coco):
    ours = values(UnroundedCocoMetric(ann_file=str(coco)), detections(coco, 0))
    assert list(ours) == [
        f'coco/bbox_mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')
    ]
    assert all(type(value) is float for value in ours.values())
    assert json.loads(json.dumps(ours)) == ours


def test_only_the_images_that_were_processed_count(coco, tmp_path):
    samples = detections(coco, 0)[3:8]
    content = json.loads(coco.read_text())
    ids = {sample['img_id'] for sample in samples}
    content['images'] = [i for i in content['images'] if i['id'] in ids]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
    part = tmp_path / 'part.json'
    part.write_text(json.dumps(content))

    def of(ann_file, found):
        return values(UnroundedCocoMetric(ann_file=str(ann_file)), found)

    assert of(coco, samples) == of(part, samples) != of(coco, detections(coco, 0))


def test_the_order_of_the_images_does_not_count(coco):
    samples = detections(coco, 0)
    assert values(UnroundedCocoMetric(ann_file=str(coco)), samples) == values(
        UnroundedCocoMetric(ann_file=str(coco)), samples[::-1]
    )


def test_no_detections_are_worth_nothing(coco):
    samples = detections(coco, 0)
    for sample in samples:
        sample['pred_instances'] = {
            key: value[:0] for key, value in sample['pred_instances'].items()
        }
    found = values(UnroundedCocoMetric(ann_file=str(coco)), samples)
    assert found['coco/bbox_mAP'] == found['coco/bbox_mAP_50'] == 0


@pytest.mark.parametrize('annotations', ('none', 'crowd', 'elsewhere'))
def test_images_without_objects_are_refused(coco, tmp_path, annotations):
    content = json.loads(coco.read_text())
    samples = detections(coco, 0)[:2]
    for entry in content['annotations']:
        entry['iscrowd'] = int(annotations == 'crowd')
    if annotations == 'none':
        content['annotations'] = []
    elif annotations == 'elsewhere':
        content['annotations'] = [
            a for a in content['annotations'] if a['image_id'] > 2
        ]
    path = tmp_path / 'none.json'
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='annotated objects.*2 images'):
        values(UnroundedCocoMetric(ann_file=str(path)), samples)


def test_near_duplicate_and_one_pixel_boxes(coco, tmp_path):
    content = json.loads(coco.read_text())
    first = dict(content['annotations'][0])
    content['annotations'] += [
        dict(first, id=10_000),
        dict(first, id=10_001, bbox=[3, 3, 1, 1], area=1),
        dict(first, id=10_002, bbox=[5, 5, 0, 0], area=0),
    ]
    path = tmp_path / 'odd.json'
    path.write_text(json.dumps(content))
    assert (
        values(UnroundedCocoMetric(ann_file=str(path)), detections(coco, 0))[
            'coco/bbox_mAP'
        ]
        > 0
    )


@pytest.mark.parametrize(
    'options',
    [
        dict(metric='proposal'),
        dict(metric=['bbox', 'proposal_fast']),
        dict(ann_file=None),
    ],
)
def test_other_metrics_are_refused(coco, options):
    with pytest.raises(UserError, match='ann_file and the metric bbox or segm'):
        UnroundedCocoMetric(**{'ann_file': str(coco), **options})
