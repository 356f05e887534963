"""AP of resampled images is that of pycocotools on these images."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcr.scoring.bootstrap import draws, resampled_ap, tell_apart


def made(repeats, seed=0):
    """Ground truth and detections of images, each as often as `repeats` says."""
    images, objects, found = [], [], []
    for number, times in enumerate(repeats):
        rng = np.random.default_rng((seed, number))
        boxes = rng.uniform(0, 80, (int(rng.integers(1, 5)), 4)).round(1)
        boxes[:, 2:] = 10 + boxes[:, 2:] / 4
        kinds = rng.integers(1, 4, len(boxes))
        crowds = rng.random(len(boxes)) < 0.15
        jitter, scores = rng.normal(0, 2.5, boxes.shape), rng.random(len(boxes))
        for _ in range(times):
            image = len(images) + 1
            images.append(dict(id=image, width=100, height=100, file_name=str(image)))
            for i, (box, kind, crowd) in enumerate(zip(boxes, kinds, crowds)):
                objects.append(
                    dict(
                        id=len(objects) + 1,
                        image_id=image,
                        category_id=int(kind),
                        bbox=box.tolist(),
                        area=float(box[2] * box[3]),
                        iscrowd=int(crowd),
                    )
                )
                found.append(
                    dict(
                        image_id=image,
                        category_id=int(kind),
                        bbox=(box + jitter[i]).tolist(),
                        score=float(scores[i]),
                    )
                )
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        kinds = [dict(id=i, name=str(i)) for i in (1, 2, 3)]
        api.dataset = dict(images=images, annotations=objects, categories=kinds)
        api.createIndex()
        evaluator = COCOeval(api, api.loadRes(found), 'bbox')
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def ap(evaluator):
    precision = evaluator.eval['precision'][:, :, :, 0, -1]
    return precision[precision > -1].mean()


def test_it_is_pycocotools_on_the_images_drawn():
    weights = draws(images=12, resamples=6, seed=3)
    assert weights.shape == (6, 12) and (weights.sum(1) == 12).all()
    resampled = resampled_ap(made([1] * 12), weights)
    for value, repeats in zip(resampled, weights):
        assert value == pytest.approx(ap(made(repeats)), abs=1e-12)
    assert len(set(resampled.tolist())) == 6
    whole = resampled_ap(made([1] * 12), np.ones((1, 12)))
    assert whole[0] == pytest.approx(ap(made([1] * 12)), abs=1e-12)


def test_images_without_objects_of_a_class():
    one = np.eye(12)[:1]
    value = resampled_ap(made([1] * 12), one)
    assert value[0] == pytest.approx(ap(made([1] + [0] * 11)), abs=1e-12)
    nothing = np.zeros((1, 12))
    assert np.isnan(resampled_ap(made([1] * 12), nothing)).all()


def test_equal_networks_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    noise, seen = rng.normal(size=(5, 1000)), rng.normal(size=5)
    ps = [tell_apart(noise[:, i], noise + seen[:, None] * 0) for i in range(200)]
    assert np.mean(np.array(ps) < 0.05) < 0.12  # about 1 in 20
    apart = np.array([0.0, 5.0, 10.0, 15.0, 20.0])
    assert tell_apart(apart, noise + apart[:, None]) == pytest.approx(1 / 1001)
