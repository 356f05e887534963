import hashlib
import json
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmcr.data import CLASSES, DataError, read_coco, write_shapes
from mmcr.data.figures import KINDS, PLAIN, RELATIONAL, TEXTURED, draw_figure
from mmcr.data.shapes import draw_scene


def digests(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> COCO:
    return COCO(write_shapes(tmp_path_factory.mktemp('shapes'), 60, seed=5))


def test_masks_fill_their_boxes_and_areas(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        x, y, w, h = annotation['bbox']
        inside = mask[y : y + h, x : x + w].sum()
        assert inside == mask.sum()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(drawn, (x, y, x + w, y + h))).max() <= 1
        assert abs(inside - annotation['area']) <= max(3, 0.05 * annotation['area'])
        assert annotation['iscrowd'] == 0
    # of an image, they do not overlap
    for image in coco.imgs:
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image]]
        twice = (np.sum(masks, axis=0) > 1).sum()
        assert twice <= 0.02 * np.sum(masks)


def test_images_hold_two_to_seven_objects_of_all_sizes_and_classes(coco):
    counts = [len(annotations) for annotations in coco.imgToAnns.values()]
    assert (min(counts) >= 2, max(counts), len(counts)) == (True, 7, 60)
    sides = np.array([max(a['bbox'][2:]) for a in coco.anns.values()])
    areas = np.array([np.prod(a['bbox'][2:]) for a in coco.anns.values()])
    assert 6 <= sides.min() <= 9
    assert areas.max() > 0.6 * 256**2
    for low, high in ((0, 16), (16, 32), (32, 64), (64, 128), (128, 256)):
        assert ((sides > low) & (sides <= high)).mean() > 0.1
    classes = np.bincount([a['category_id'] - 1 for a in coco.anns.values()])
    assert len(classes) == len(CLASSES)
    assert classes.min() > 0.4 * classes.mean()
    assert {c['name']: c['supercategory'] for c in coco.cats.values()} == KINDS


def test_objects_hide_parts_of_others():
    rng = np.random.default_rng(0)
    touching = 0
    for _ in range(20):
        boxes = np.array([o['bbox'] for o in draw_scene(rng, (128, 128))[1]])
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        common = np.minimum(high[:, None], high) > np.maximum(low[:, None], low)
        touching += common.all(-1).sum() > len(boxes)
    assert touching >= 5


@pytest.mark.parametrize(
    ('pair', 'size'),
    [*product([TEXTURED], (10, 30, 60, 150)), *product([RELATIONAL], (60, 150))],
)
def test_hard_pairs_share_outline_and_brightness(pair, size):
    means = []
    for seed in range(40):
        one, other = (draw_figure(np.random.default_rng(seed), n, size) for n in pair)
        assert np.array_equal(one.mask, other.mask)
        assert not np.array_equal(one.tone, other.tone)
        means.append([f.tone[f.mask].mean() for f in (one, other)])
        if pair == RELATIONAL:
            tones = [np.sort(f.tone[f.mask]) for f in (one, other)]
            assert np.array_equal(*tones)
    # A tone runs from -50 to 50: over the set the two are equally bright.
    assert np.abs(np.diff(np.mean(means, axis=0))).item() < 3


def test_relational_pair_differs_in_one_of_two_far_apart_discs():
    for seed in range(10):
        one, other = (
            draw_figure(np.random.default_rng(seed), n, 120) for n in RELATIONAL
        )
        width = one.mask.shape[1]
        differs = np.flatnonzero((one.tone != other.tone).any(axis=0))
        assert differs.min() > width / 2
        assert np.array_equal(one.guarded, other.guarded)
        discs, labels = cv2.connectedComponents(one.guarded.astype(np.uint8))
        assert discs == 3  # with the background
        centres = [np.argwhere(labels == i).mean(axis=0) for i in (1, 2)]
        assert np.hypot(*np.subtract(*centres)) > 0.5 * width


@pytest.mark.parametrize('name', RELATIONAL)
def test_either_disc_alone_says_nothing(name):
    """Over the draws the light half of each disc is above as often as below."""

    def light_above(tone):
        light, dark = (np.argwhere(tone == t).mean(axis=0)[0] for t in (80, -80))
        return light < dark

    lights = []
    for seed in range(200):
        figure = draw_figure(np.random.default_rng(seed), name, 64)
        halves = np.array_split(figure.tone, 2, axis=1)
        lights.append([light_above(half) for half in halves])
    left, right = np.array(lights).T
    assert 0.4 < left.mean() < 0.6 and 0.4 < right.mean() < 0.6
    assert (left == right).all() == (name == 'matched')
    assert (left != right).all() == (name == 'mismatched')


def test_plain_figures_differ_in_outline():
    one, other = (draw_figure(np.random.default_rng(3), n, 40) for n in PLAIN)
    assert not one.tone.any() and not other.tone.any()
    assert one.mask.shape != other.mask.shape or (one.mask != other.mask).mean() > 0.1


def test_same_arguments_same_bytes_and_a_longer_set_begins_with_the_shorter(tmp_path):
    first = write_shapes(tmp_path / 'a', 4, (96, 80), seed=1)
    write_shapes(tmp_path / 'b', 4, (96, 80), seed=1)
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')

    short = json.loads(first.read_text())
    images = digests(tmp_path / 'a' / 'train')
    long = json.loads(write_shapes(tmp_path / 'a', 6, (96, 80), seed=1).read_text())
    assert digests(tmp_path / 'a' / 'train').items() > images.items()
    assert long['images'][:4] == short['images']
    assert long['annotations'][: len(short['annotations'])] == short['annotations']
    assert cv2.imread(str(tmp_path / 'a/train/train_000000.png')).shape == (80, 96, 3)

    for split, seed in (('val', 1), ('train', 2)):
        write_shapes(tmp_path / 'c', 4, (96, 80), seed=seed, split=split)
    others = set(digests(tmp_path / 'c').values())
    assert not others & set(images.values())


def test_written_again_only_where_something_differs(tmp_path):
    path = write_shapes(tmp_path, 3, (64, 64))
    before = digests(tmp_path)
    written = path.stat().st_mtime_ns
    write_shapes(tmp_path, 3, (64, 64))
    assert path.stat().st_mtime_ns == written

    (tmp_path / 'train/train_000001.png').unlink()
    write_shapes(tmp_path, 3, (64, 64))
    assert digests(tmp_path) == before

    mine = tmp_path / 'train/mine.png'
    mine.write_bytes(b'not of the data set')
    write_shapes(tmp_path, 1, (64, 64))
    assert len(read_coco(path)['images']) == 1
    left = sorted(p.name for p in mine.parent.iterdir())
    assert left == ['mine.png', 'train_000000.png']


def test_an_interrupted_writing_leaves_no_annotations(tmp_path, monkeypatch):
    whole = digests(write_shapes(tmp_path / 'whole', 3, (64, 64)).parent)

    def stop_at_third(rng, size, sizes=None, calls=[]):  # noqa: B006
        calls.append(size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_scene(rng, size)

    monkeypatch.setattr('mmcr.data.shapes.draw_scene', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / 'cut', 3, (64, 64))
    assert not (tmp_path / 'cut/train.json').exists()
    write_shapes(tmp_path / 'cut', 3, (64, 64))
    assert digests(tmp_path / 'cut') == whole


def test_only_the_annotations_are_written_one_by_one(tmp_path, monkeypatch):
    """They say that the images are whole; thousands of these would take long."""
    synced = []
    monkeypatch.setattr('os.fsync', synced.append)
    write_shapes(tmp_path, 3, (64, 64))
    assert len(synced) == 2  # the file and its folder


def test_a_foreign_file_is_not_overwritten(tmp_path):
    for content in ('{"images": []}', 'no json', '[]'):
        (tmp_path / 'train.json').write_text(content)
        with pytest.raises(DataError, match='not overwritten. Choose another folder'):
            write_shapes(tmp_path, 2)
        assert (tmp_path / 'train.json').read_text() == content


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_images=0), 'at least 1, but got 0'),
        (dict(image_size=(256, 32)), r'at least 64 pixels, but got \(256, 32\)'),
        (dict(image_size=(256,)), r'but got \(256,\)'),
        (dict(seed=-1), 'seed must be an integer of at least 0, but got -1'),
        (dict(split='../x'), "a plain word like 'train', but got '../x'"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_shapes(tmp_path, **{'num_images': 1, **arguments})
    assert not list(tmp_path.iterdir())


def test_objects_of_a_range_of_sizes(tmp_path):
    path = write_shapes(tmp_path, 12, (192, 192), object_size=(64, 180))
    content = json.loads(path.read_text())
    assert content['info']['recipe']['object_size'] == [64, 180]
    sides = [max(a['bbox'][2:]) for a in content['annotations']]
    # parts may lie outside the image or behind other objects
    assert 32 < min(sides) and 100 < max(sides) <= 181
    small = write_shapes(tmp_path, 12, (192, 192), split='small', object_size=(8, 28))
    sides = [max(a['bbox'][2:]) for a in json.loads(small.read_text())['annotations']]
    assert max(sides) <= 29
    whole = json.loads(write_shapes(tmp_path, 12, (192, 192), split='all').read_text())
    assert 'object_size' not in whole['info']['recipe']
    for wrong in (4, 20), (30, 20), (20, 190):
        with pytest.raises(DataError, match='object size must be'):
            write_shapes(tmp_path, 1, (192, 192), split='wrong', object_size=wrong)
