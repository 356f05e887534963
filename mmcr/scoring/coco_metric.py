"""COCO AP as the evaluator computes it, not rounded."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation.metrics import CocoMetric

from mmcr.errors import UserError
from mmcr.registry import METRICS
from mmcr.scoring.bootstrap import resampled_ap
from mmcr.scoring.coco_ids import Numbers

#: Evaluators by the name of their package, the quicker one first.
BACKENDS = ('faster_coco_eval', 'pycocotools')


@METRICS.register_module()
class UnroundedCocoMetric(CocoMetric):
    """mmdet's `CocoMetric` for ranking candidates.

    Values are not rounded (mmdet rounds to three decimals, so that close candidates
    tie), and only images that were processed count. A value is -1 where there is no
    object of its kind. As with mmdet, mAP counts the 100 best detections of an image,
    where `proposal_nums` contains 100, and every other value the largest of these.

    Args:
        backend: ``'faster_coco_eval'`` (written in C++) or ``'pycocotools'``, which
            give the same values, or ``None`` for the first where it is installed, else
            the second.

    Raises:
        UserError: There is no annotation file or no object on the images, a metric is
            not of boxes or masks, a score is NaN, an image is not in the annotation
            file, or the backend is missing.
    """

    def __init__(self, *args, backend: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self._coco_api is None or not set(self.metrics) <= {'bbox', 'segm'}:
            raise UserError(
                f'{type(self).__name__} needs an ann_file and the metric bbox or segm, '
                f'but got ann_file={kwargs.get("ann_file")!r} and '
                f'metric={self.metrics}.'
            )
        if backend not in (*BACKENDS, None):
            raise UserError(
                f'backend must be None or one of {", ".join(BACKENDS)}, but got '
                f'{backend!r}.'
            )
        try:
            import faster_coco_eval  # noqa: F401
        except ImportError:
            if backend == BACKENDS[0]:
                package = backend.replace('_', '-')
                raise UserError(
                    f'backend {backend!r} needs its package: pip install {package}, '
                    f'or use {BACKENDS[1]!r}.'
                ) from None
            backend = BACKENDS[1]
        self.backend = backend or BACKENDS[0]
        self._numbers = Numbers(self._coco_api)
        self._coco_api = self._numbers.annotations(self._coco_api)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        start = len(self.results)
        super().process(data_batch, data_samples)
        for _, prediction in self.results[start:]:
            for name, value in prediction.items():
                if isinstance(value, np.ndarray):
                    # a view would keep all boxes that these were chosen from
                    prediction[name] = value.copy()

    def compute_metrics(self, results: list) -> dict[str, float]:
        predictions, image_ids = self._checked(results)
        values = {}
        for kind in self.metrics:
            coco_eval = self._evaluated(kind, predictions, image_ids)
            with contextlib.redirect_stdout(io.StringIO()):
                coco_eval.accumulate()
            precision = coco_eval.eval['precision']
            for name, value in _average_precision(precision, coco_eval.params).items():
                values[f'{kind}_{name}'] = value
        return values

    def resampled(self, results: list, kind: str, draws: np.ndarray) -> np.ndarray:
        """AP (mAP) of resampled images.

        Args:
            results: What `process` made of the images, each once.
            kind: ``bbox`` or ``segm``.
            draws: How often each image is drawn, by rising number of the image, of
                shape ``resamples x images``.

        Returns:
            Of shape ``resamples``, from 0 to 1.
        """
        predictions, image_ids = self._checked(results)
        # the C++ evaluator keeps its matches to itself
        coco_eval = self._evaluated(kind, predictions, image_ids, BACKENDS[1])
        return resampled_ap(coco_eval, draws)

    def _checked(self, results: list) -> tuple[list[dict], list[int]]:
        """The predictions, and the numbers of their images in order."""
        predictions = [prediction for _, prediction in results]
        classes = self.dataset_meta['classes']
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
        numbers = self._numbers.images
        unknown = [p['img_id'] for p in predictions if p['img_id'] not in numbers]
        if unknown:
            raise UserError(
                f'The images to score on must be in the annotation file of the metric, '
                f'but {len(unknown)} are not, for example the one of id '
                f'{unknown[0]!r}. Set ann_file of the evaluator to that of the data '
                f'set.'
            )
        image_ids = sorted(numbers[prediction['img_id']] for prediction in predictions)
        # asked for no images at all, the API would give those of all images
        if not image_ids or not self._coco_api.get_ann_ids(
            img_ids=image_ids, cat_ids=self.cat_ids, iscrowd=False
        ):
            raise UserError(
                f'AP needs annotated objects, but the {len(image_ids)} images to score '
                f'on have none of the classes {classes}. Use other or more archval '
                f'images.'
            )
        for prediction in predictions:
            if np.isnan(prediction['scores']).any():
                raise UserError(
                    f'Detections need numbers for scores, but image '
                    f'{prediction["img_id"]} has NaN. Check the weights of the '
                    f'checkpoint, and fp16 where it is on.'
                )
        return predictions, image_ids

    def _evaluated(
        self,
        kind: str,
        predictions: list[dict],
        image_ids: list,
        backend: str | None = None,
    ):
        """The evaluator, its detections matched."""
        evaluator = COCOeval
        if (backend or self.backend) == BACKENDS[0]:
            from faster_coco_eval import COCOeval_faster as evaluator
        api, detections = self._coco_api, list(self._detections(kind, predictions))
        with contextlib.redirect_stdout(io.StringIO()):
            # loadRes cannot tell the kind of an empty list
            found = api.loadRes(detections) if detections else type(api)()
            coco_eval = evaluator(api, found, kind)
            # it has threads of its own for masks; here processes share the work
            coco_eval.rle_iou_max_workers = 1
            coco_eval.params.catIds = self.cat_ids
            coco_eval.params.imgIds = image_ids
            coco_eval.params.maxDets = list(self.proposal_nums)
            coco_eval.params.iouThrs = np.asarray(self.iou_thrs)
            coco_eval.evaluate()
        return coco_eval

    def _detections(self, kind: str, predictions: list[dict]) -> Iterator[dict]:
        """In COCO's form; of a mask with a box, the box's area would count."""
        for prediction in predictions:
            scores = prediction['scores']
            if kind == 'segm':
                scores = prediction.get('mask_scores', scores)
                shapes = [dict(segmentation=mask) for mask in prediction['masks']]
            else:
                boxes = prediction['bboxes'].astype(float)
                boxes[:, 2:] -= boxes[:, :2]
                shapes = [dict(bbox=box) for box in boxes.tolist()]
            labels = prediction['labels'].tolist()
            for shape, score, label in zip(shapes, scores.tolist(), labels):
                yield dict(
                    image_id=self._numbers.images[prediction['img_id']],
                    category_id=self.cat_ids[label],
                    score=score,
                    **shape,
                )


def _average_precision(precision: np.ndarray, params) -> dict[str, float]:
    """The six values that pycocotools makes of precisions.

    The evaluators' own summaries disagree on the detections that count.

    Args:
        precision: ``thresholds x recalls x classes x areas x detections``, -1 where
            there is no object.
        params: The evaluator's parameters after it has run.
    """

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(np.mean(values)) if len(values) else -1.0

    counts, areas = params.maxDets, params.areaRngLbl
    hundred = counts.index(100) if 100 in counts else -1
    of_all, largest = precision[..., areas.index('all'), :], precision[..., -1]
    return dict(
        mAP=mean(of_all[..., hundred]),
        mAP_50=mean(of_all[params.iouThrs == 0.5][..., -1]),
        mAP_75=mean(of_all[params.iouThrs == 0.75][..., -1]),
        mAP_s=mean(largest[..., areas.index('small')]),
        mAP_m=mean(largest[..., areas.index('medium')]),
        mAP_l=mean(largest[..., areas.index('large')]),
    )
