"""COCO evaluation that is right whatever the ids are.

pycocotools takes a match with the annotation of id 0 for none (cvat-ai/cvat#748).
NumPy makes float64 of integer ids around 2**63 and text of mixed ones, which are then
found nowhere (cocodataset/cocoapi#330). And both need `iscrowd`, which is optional.
"""

import contextlib
import copy
import io
from math import isfinite

import pycocotools.coco

#: mmdet's metrics and the evaluators in them.
EVALUATORS = dict(
    coco_metric=('COCOeval', 'COCOevalMP'), faster_coco_metric=('COCOeval_faster',)
)


class Numbers:
    """Numbers from 1 for the ids of a COCO API.

    Attributes:
        images: By id, in the order of ids, as evaluators sort them.
        categories: By id, in the order of the file.
    """

    def __init__(self, api) -> None:
        images = sorted(api.imgs, key=lambda i: (isinstance(i, str), i))
        self.images = {image: n for n, image in enumerate(images, 1)}
        self.categories = {category: n for n, category in enumerate(api.cats, 1)}

    def annotations(self, api):
        """Its annotations under numbers, the optional fields filled.

        Those whose box is no number are left out, as mmdet's data sets do.
        """
        kept = [
            dict(annotation, id=n, iscrowd=int(bool(annotation.get('iscrowd'))))
            for n, annotation in enumerate(api.dataset.get('annotations', ()), 1)
            if isfinite(sum(annotation['bbox']))
        ]
        return self._numbered(api, kept)

    def detections(self, api):
        """Those of a COCO API under numbers; their own ids are numbers already."""
        found = [dict(each) for each in api.dataset.get('annotations', ())]
        return self._numbered(api, found)

    def _numbered(self, api, annotations: list[dict]):
        for each in annotations:
            each['image_id'] = self.images[each['image_id']]
            each['category_id'] = self.categories[each['category_id']]
        content = dict(api.dataset, annotations=annotations)
        content['images'] = [
            dict(
                image,
                id=self.images[image['id']],
                width=int(image['width']),
                height=int(image['height']),
            )
            for image in content.get('images', ())
        ]
        content['categories'] = [
            dict(category, id=self.categories[category['id']])
            for category in content.get('categories', ())
        ]
        numbered = copy.copy(api)
        numbered.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            numbered.createIndex()
        return numbered


class NumberedEval:
    """Makes an evaluator, the next class in line, count with numbers for ids.

    Its parameters are ids as before, until it evaluates.
    """

    def __init__(self, cocoGt, cocoDt, iouType='segm', **options) -> None:  # noqa: N803
        numbers = self._numbers = Numbers(cocoGt)
        annotated, found = numbers.annotations(cocoGt), numbers.detections(cocoDt)
        super().__init__(annotated, found, iouType, **options)
        self.params.imgIds, self.params.catIds = [*cocoGt.imgs], [*cocoGt.cats]

    def evaluate(self) -> None:
        params, numbers = self.params, self._numbers
        params.imgIds = [numbers.images[i] for i in params.imgIds]
        params.catIds = [numbers.categories[i] for i in params.catIds]
        super().evaluate()


def _load_cats(self, ids=()) -> list[dict]:
    # a text is no list of ids
    return pycocotools.coco.COCO.loadCats(self, [ids] if isinstance(ids, str) else ids)


def accept_any_ids() -> None:
    """Lets mmdet's own metrics of COCO's AP evaluate by `NumberedEval`."""
    import mmdet.evaluation.metrics
    from mmdet.datasets.api_wrappers import COCO

    COCO.loadCats = _load_cats
    for module, names in EVALUATORS.items():
        module = getattr(mmdet.evaluation.metrics, module, None)
        for name in names:
            kind = getattr(module, name, None)
            if kind and not issubclass(kind, NumberedEval):
                place = dict(__module__=module.__name__)  # where pickle looks for it
                setattr(module, name, type(name, (NumberedEval, kind), place))
