"""How far AP depends on the images that it is measured on: a bootstrap over them."""

import numpy as np

ALL_AREAS = 0  # the first of COCO's ranges of area


def resampled_ap(coco_eval, weights: np.ndarray) -> np.ndarray:
    """AP (mean over classes and IoU thresholds) of resampled images.

    Detections are matched once; an image that was drawn n times counts n times.

    Args:
        coco_eval: pycocotools' evaluator after `evaluate`, with `evalImgs`.
        weights: How often each image of ``coco_eval.params.imgIds`` was drawn, of
            shape ``resamples x images``.

    Returns:
        Of shape ``resamples``, from 0 to 1; classes without an object among the images
        that were drawn are left out, and without any class it is NaN.
    """
    params = coco_eval.params
    areas, images = len(params.areaRng), len(params.imgIds)
    per_class = []
    for place in range(len(params.catIds) if params.useCats else 1):
        start = (place * areas + ALL_AREAS) * images
        found = coco_eval.evalImgs[start : start + images]
        per_class.append(_of_class(found, weights, params))
    values = np.array(per_class)
    with np.errstate(invalid='ignore'):
        known = ~np.isnan(values)
        return np.where(known, values, 0).sum(0) / known.sum(0)


def _of_class(found: list, weights: np.ndarray, params) -> np.ndarray:
    """Of one class; NaN where no object of it was drawn."""
    there = [(i, each) for i, each in enumerate(found) if each is not None]
    objects = np.zeros(weights.shape[1])
    for i, each in there:
        objects[i] = np.count_nonzero(np.equal(each['gtIgnore'], 0))
    drawn = weights @ objects
    if not there or not objects.any():
        return np.full(len(weights), np.nan)
    counts = list(params.maxDets)
    most = 100 if 100 in counts else counts[-1]  # that mAP counts
    scores = np.concatenate([each['dtScores'][:most] for _, each in there])
    images = np.concatenate([[i] * len(e['dtScores'][:most]) for i, e in there])
    matched, ignored = (
        np.concatenate([np.asarray(each[name])[:, :most] for _, each in there], axis=1)
        for name in ('dtMatches', 'dtIgnore')
    )
    order = np.argsort(-scores, kind='mergesort')  # ties as pycocotools has them
    counts = ~ignored[:, order].astype(bool)
    hits = matched[:, order].astype(bool) & counts
    images = images[order].astype(int)
    values = np.full(len(weights), np.nan)
    for i, own in enumerate(weights[:, images]):
        if drawn[i]:
            values[i] = _mean_precision(hits * own, counts * own, drawn[i], params)
    return values


def _mean_precision(
    hits: np.ndarray, counts: np.ndarray, objects: float, params
) -> float:
    """Interpolated precision at the recalls, mean over these and the thresholds.

    Args:
        hits: Weights of the detections that found an object, by falling score, of
            shape ``thresholds x detections``.
        counts: Weights of all that count.
        objects: How many there are to find.
        params: The evaluator's.
    """
    true, all_ = hits.cumsum(1), counts.cumsum(1)
    precision = true / np.maximum(all_, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, envelope in zip(true / objects, precision):
        places = np.searchsorted(recall, params.recThrs, side='left')
        total += envelope[places[places < len(envelope)]].sum()
    return total / (len(precision) * len(params.recThrs))


def tell_apart(observed: np.ndarray, resampled: np.ndarray) -> float:
    """P that networks of equal AP differ as these do, from the images alone.

    The sum of squared deviations from the mean, against that of the resamples'
    deviations.

    Args:
        observed: AP of each network on all images, of shape ``networks``.
        resampled: On resampled images, the same for all networks, of shape
            ``networks x resamples``.
    """

    def spread(values: np.ndarray) -> np.ndarray:
        return ((values - values.mean(0)) ** 2).sum(0)

    noise = spread(resampled - observed[:, None])
    return float((1 + (noise >= spread(observed)).sum()) / (1 + len(noise)))


def draws(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each image is drawn, ``resamples x images``; the same for one seed."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)
