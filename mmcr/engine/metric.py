"""COCO AP as the evaluator computes it, not rounded."""

import contextlib
import io
import tempfile

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.metrics import CocoMetric
from mmengine.fileio import load

from mmcr.errors import UserError
from mmcr.registry import METRICS

STATS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class UnroundedCocoMetric(CocoMetric):
    """mmdet's `CocoMetric` for ranking candidates.

    It differs in two things: values keep full precision (mmdet rounds to three
    decimals, so that close candidates tie), and the images that count are
    those that were processed. A value is -1 where there is no object of its
    kind, as in pycocotools.

    Raises:
        UserError: There is no annotation file, or something else than boxes and
            masks is asked for, or the images hold no annotated object.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self._coco_api is None or not set(self.metrics) <= {'bbox', 'segm'}:
            raise UserError(
                f'{type(self).__name__} needs an ann_file and the metric bbox or segm, '
                f'but got ann_file={kwargs.get("ann_file")!r} and '
                f'metric={self.metrics}.'
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        predictions = [prediction for _, prediction in results]
        self.cat_ids = self._coco_api.get_cat_ids(
            cat_names=self.dataset_meta['classes']
        )
        image_ids = sorted(prediction['img_id'] for prediction in predictions)
        # asked for no images at all, the API would give those of all images
        if not image_ids or not self._coco_api.get_ann_ids(
            img_ids=image_ids, cat_ids=self.cat_ids, iscrowd=False
        ):
            raise UserError(
                f'AP needs annotated objects, but the {len(image_ids)} images to score '
                f'on have none of the classes {self.dataset_meta["classes"]}. Use '
                f'other or more archval images.'
            )
        metrics = {}
        with tempfile.TemporaryDirectory() as folder:
            files = self.results2json(predictions, f'{folder}/results')
            for kind in self.metrics:
                stats = self._stats(kind, load(files[kind]), image_ids)
                metrics.update(
                    {
                        f'{kind}_{name}': float(value)
                        for name, value in zip(STATS, stats)
                    }
                )
        return metrics

    def _stats(self, kind: str, detections: list[dict], image_ids: list) -> np.ndarray:
        if kind == 'segm':
            # with a box at hand pycocotools takes the box's area for the mask's
            for detection in detections:
                detection.pop('bbox', None)
        with contextlib.redirect_stdout(io.StringIO()):
            # loadRes cannot tell the kind of an empty list
            found = (
                self._coco_api.loadRes(detections)
                if detections
                else type(self._coco_api)()
            )
            coco_eval = COCOeval(self._coco_api, found, kind)
            coco_eval.params.catIds = self.cat_ids
            coco_eval.params.imgIds = image_ids
            coco_eval.params.maxDets = list(self.proposal_nums)
            coco_eval.params.iouThrs = np.asarray(self.iou_thrs)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        return coco_eval.stats[: len(STATS)]
