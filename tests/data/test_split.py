import json
import random
from pathlib import Path

import pytest

from mmcr.data import DataError, read_coco, split_coco


def make_coco(count: int = 20) -> dict:
    """Images without annotations, boxes of one pixel, and equal boxes."""
    boxes = [[1, 1, 1, 1], [5, 5, 20, 9], [5, 5, 20, 9]] * (count // 2)
    annotations = [
        dict(id=n, image_id=n // 3 * 2, category_id=7, bbox=box, area=1, iscrowd=0)
        for n, box in enumerate(boxes)
    ]
    size = dict(width=64, height=64)
    return dict(
        info=dict(year=2017),
        licenses=[dict(id=1, name='MIT')],
        categories=[dict(id=7, name='cell')],
        images=[dict(id=n, file_name=f'{n}.jpg', **size) for n in range(count)],
        annotations=annotations,
    )


@pytest.fixture
def ann_file(tmp_path) -> Path:
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(make_coco()))
    return path


def ids(coco: dict) -> set:
    return {image['id'] for image in coco['images']}


def test_parts_are_disjoint_complete_and_keep_the_rest(ann_file, tmp_path):
    files = split_coco(ann_file, 6, tmp_path / 'out')
    assert [path.name for path in files] == ['archtrain.json', 'archval.json']
    train, val = map(read_coco, files)
    whole = make_coco()
    assert (len(ids(train)), len(ids(val))) == (14, 6)
    assert ids(train) | ids(val) == ids(whole)
    for part in (train, val):
        for key in ('info', 'licenses', 'categories'):
            assert part[key] == whole[key]
        assert part['annotations'] == [
            a for a in whole['annotations'] if a['image_id'] in ids(part)
        ]


def test_order_of_the_file_does_not_matter_but_the_seed_does(ann_file, tmp_path):
    first = [path.read_bytes() for path in split_coco(ann_file, 6, tmp_path / 'a')]
    coco = make_coco()
    random.Random(0).shuffle(coco['images'])
    random.Random(1).shuffle(coco['annotations'])
    ann_file.write_text(json.dumps(coco, indent=1))
    again = [path.read_bytes() for path in split_coco(ann_file, 6, tmp_path / 'b')]
    assert again == first
    other = split_coco(ann_file, 6, tmp_path / 'c', seed=1)
    assert [path.read_bytes() for path in other] != first


def test_ids_may_be_text(ann_file, tmp_path):
    coco = make_coco(4)
    coco['images'][1]['id'] = 'b'
    ann_file.write_text(json.dumps(coco))
    parts = map(read_coco, split_coco(ann_file, 2, tmp_path))
    assert set.union(*map(ids, parts)) == {0, 'b', 2, 3}


@pytest.mark.parametrize('archval', [-1, 0, 20, 5000])
def test_archval_must_leave_something_to_train_on(ann_file, tmp_path, archval):
    with pytest.raises(DataError, match=f'archval={archval} .* 20 images.*1 to 19'):
        split_coco(ann_file, archval, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['4.jpg', './4.jpg', 'sub/../4.jpg', './/4.jpg'])
def test_an_image_listed_twice_is_refused(ann_file, tmp_path, name):
    coco = make_coco()
    coco['images'][3]['file_name'] = name
    ann_file.write_text(json.dumps(coco))
    with pytest.raises(DataError, match="1 images more than once.*'4.jpg'.*Merge"):
        split_coco(ann_file, 6, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_another_split_is_not_replaced(ann_file, tmp_path):
    files = split_coco(ann_file, 6, tmp_path)
    before = [path.read_bytes() for path in files]
    for change in dict(seed=1), dict(archval=5):
        with pytest.raises(DataError, match=r"replace '.*archtrain.json'.*move that"):
            split_coco(ann_file, **{'archval': 6, **change}, out_dir=tmp_path)
    assert [path.read_bytes() for path in files] == before
    for path in files:  # whichever a run that was killed has not written yet
        path.unlink()
        split_coco(ann_file, 6, tmp_path)
        assert [path.read_bytes() for path in files] == before
    files[0].unlink()
    with pytest.raises(DataError, match=r"replace '.*archval.json'"):
        split_coco(ann_file, 6, tmp_path, seed=1)
    assert not files[0].exists()


def test_the_input_is_not_replaced(ann_file, tmp_path):
    path = ann_file.rename(tmp_path / 'archval.json')
    with pytest.raises(DataError, match='Choose another output folder'):
        split_coco(path, 6, tmp_path)
    assert json.loads(path.read_text()) == make_coco()
