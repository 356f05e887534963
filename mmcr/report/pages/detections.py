"""What two detectors say of the same images, where they differ most."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import mmcv
import numpy as np
import torch
from mmdet.evaluation.functional.mean_ap import tpfp_default
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import Dataset

LOOKED_AT = 64  # images, evenly over the set
SHOWN = 8
SCORE = 0.3  # of a box that counts and is drawn, as mmdet draws them
IOU = 0.5  # with an object of its class, of a box that is right
SIDE, QUALITY = 400, 80  # of a picture: the longer side in pixels, and JPEG's


@dataclass(frozen=True)
class Image:
    """An image, and what detectors say of it.

    Attributes:
        path: Of the file.
        objects: With `bboxes` (n, 4) in pixels of the file, `labels` and `ignored`.
        said: By detector its boxes above `SCORE`, with `bboxes`, `labels`, `scores`.
        counts: By detector, how many of these are right and how many wrong.
    """

    path: str
    objects: InstanceData
    said: Mapping[str, InstanceData]
    counts: Mapping[str, tuple[int, int]]

    @property
    def differ(self) -> tuple[int, int]:
        """By how many right boxes the detectors differ, and by how many wrong ones."""
        of_kinds = zip(*self.counts.values())
        return tuple(max(counts) - min(counts) for counts in of_kinds)


@torch.no_grad()
def compared(
    detectors: Mapping[str, nn.Module], sets: Mapping[str, Dataset]
) -> list[Image]:
    """`LOOKED_AT` images of a data set, as detectors see them.

    Args:
        detectors: By name, in eval mode.
        sets: By detector the data set, of mmdet, with the pipeline of its test.
    """
    dataset = next(iter(sets.values()))
    count = min(LOOKED_AT, len(dataset))
    images = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        known = dataset.get_data_info(index)
        objects, said = _objects(known['instances']), {}
        for name, detector in detectors.items():
            # anew for each: detectors write into what they are given
            (sample,) = detector.test_step(pseudo_collate([sets[name][index]]))
            found = sample.pred_instances.cpu()
            bboxes = get_box_tensor(found.bboxes)
            said[name] = InstanceData(
                bboxes=bboxes, labels=found.labels, scores=found.scores
            )[found.scores > SCORE]
        counts = {name: count_right(objects, found) for name, found in said.items()}
        images.append(Image(known['img_path'], objects, said, counts))
    return images


def _objects(instances: list[dict]) -> InstanceData:
    bboxes = [each['bbox'] for each in instances]
    return InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([each['bbox_label'] for each in instances], dtype=int),
        ignored=torch.tensor(
            [bool(each.get('ignore_flag')) for each in instances], dtype=bool
        ),
    )


def count_right(objects: InstanceData, found: InstanceData) -> tuple[int, int]:
    """How many boxes are right, one for an object, and how many are wrong."""
    right = wrong = 0
    scored = torch.cat([found.bboxes, found.scores[:, None]], 1)
    for label in found.labels.unique():
        there = objects[objects.labels == label]
        true, false = tpfp_default(
            scored[found.labels == label].numpy(),
            there.bboxes[~there.ignored].numpy(),
            there.bboxes[there.ignored].numpy(),
            IOU,
        )
        right, wrong = right + int(true.sum()), wrong + int(false.sum())
    return right, wrong


def shown(images: list[Image], dataset: Dataset) -> dict:
    """Those on which two detectors differ most, drawn: JSON for a page.

    Args:
        images: From `compared`.
        dataset: That they are of.

    Returns:
        How many `objects` and right and wrong boxes (`counts`) all of the `images`
        have, of how many (`of`); and `shown`, at most `SHOWN` of them, each with its
        `name`, `objects`, `counts` and, by what they show, `pictures`: JPEG in base64.
    """
    most = sorted(images, key=lambda each: each.differ, reverse=True)
    visualizer = DetLocalVisualizer('differences', line_width=2)
    # a set's own palette may have too few colours for its classes
    # and matplotlib takes what is between dollars for a formula
    names = [name.replace('$', r'\$') for name in dataset.metainfo['classes']]
    visualizer.dataset_meta = dict(dataset.metainfo, classes=names, palette='random')
    return dict(
        images=len(images),
        of=len(dataset),
        objects=sum(_count(each) for each in images),
        counts={
            name: np.sum([each.counts[name] for each in images], 0).tolist()
            for name in images[0].counts
        },
        shown=[
            dict(
                name=os.path.basename(each.path),
                objects=_count(each),
                counts=each.counts,
                pictures=_pictures(each, visualizer),
            )
            for each in most[:SHOWN]
            if any(each.differ)
        ],
    )


def _count(image: Image) -> int:
    return int((~image.objects.ignored).sum())


def _pictures(image: Image, visualizer: DetLocalVisualizer) -> dict[str, str]:
    """What each detector says, and what is there, each by itself."""
    pixels = mmcv.imread(image.path, channel_order='rgb')
    scale = SIDE / max(pixels.shape[:2])
    pixels = mmcv.imrescale(pixels, scale)
    objects = image.objects[~image.objects.ignored]
    pictures = {}
    for name, boxes in dict(image.said, objects=objects).items():
        sample, are_objects = DetDataSample(), boxes is objects
        kind = 'gt_instances' if are_objects else 'pred_instances'
        boxes = boxes.clone()
        boxes.bboxes = boxes.bboxes * scale
        setattr(sample, kind, boxes)
        visualizer.add_datasample(
            *(name, pixels, sample),
            draw_gt=are_objects,
            draw_pred=not are_objects,
            pred_score_thr=SCORE,
        )
        drawn = visualizer.get_image()[..., ::-1]
        _, jpeg = cv2.imencode('.jpg', drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        pictures[name] = base64.b64encode(jpeg).decode()
    return pictures
