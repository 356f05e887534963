"""Metrics of a candidate, computed in place, and the memory of its detections."""

import tracemalloc

import numpy as np
import pytest
import torch

from mmcr.scoring.grouping import result_bytes


def image_results(count, masks, rng):
    """As mmdet's metric keeps them, every object a new one."""
    results = []
    for i in range(300, 700):
        found = dict(
            img_id=i,
            bboxes=rng.random((count, 4), np.float32),
            scores=rng.random(count, np.float32),
            labels=rng.integers(0, 80, count),
        )
        if masks:
            found['masks'] = [
                dict(size=[800 + i, 1333], counts=bytes(rng.integers(50, 250)))
                for _ in range(count)
            ]
        results.append((dict(width=1333, height=800, img_id=i), found))
    return [results]


@pytest.mark.parametrize('masks', (False, True))
@pytest.mark.parametrize('count', (0, 5, 100))
def test_bytes_are_those_that_were_allocated(count, masks):
    rng = np.random.default_rng(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = image_results(count, masks, rng)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * used < result_bytes(results) < 1.2 * used


def test_bytes_of_what_a_view_keeps():
    base = np.zeros(10_000)
    assert 80_000 < result_bytes([base[:2], base[2:4]]) < 81_000
    tensor = torch.zeros(10_000)
    views = [tensor[:2].numpy(), tensor[2:4].numpy(), tensor[:5], tensor]
    assert 40_000 < result_bytes(views) < 41_000
    assert result_bytes([torch.zeros(5000), torch.zeros(5000)]) > 40_000


def test_bytes_of_the_same_thing_twice():
    text = 'x' * 10_000
    assert result_bytes([text, text]) < 1.1 * result_bytes([text]) < 12_000
    ring = [text]
    ring.append(ring)
    assert 10_000 < result_bytes(ring) < 11_000
