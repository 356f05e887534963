import copy
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmcr.cli import user_errors
from mmcr.data import DataError, check_config, read_coco, split_coco
from mmcr.data.checks import check_classes, check_disjoint, image_files
from mmcr.data.coco import forget
from mmcr.data.sets import CocoSet
from mmcr.errors import UserError

CLASSES = ('cell', 'plate', 'dust')
SIZE = dict(width=8, height=8)


def make_coco(count: int = 6) -> dict:
    box = dict(bbox=[0, 0, 1, 1], area=1, iscrowd=0)
    annotated = range(count - 1)
    return dict(
        images=[{**SIZE, 'id': n, 'file_name': f'{n}.png'} for n in range(count)],
        categories=[dict(id=n, name=name) for n, name in enumerate(CLASSES)],
        annotations=[dict(id=n, image_id=n, category_id=0, **box) for n in annotated],
    )


def coco_set(classes=CLASSES, coco=None, path='a.json', folder='') -> CocoSet:
    return CocoSet(path, folder, classes, coco or make_coco())


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(make_coco()))
    return path


# Reading


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty. Make or copy it again'),
        (b' \n', 'is empty'),
        (b'{"images": [', r'not JSON \(.*column.*\). Name a COCO JSON file'),
        (b'\xff\xd8\xff\xe0', 'is not JSON'),
        (b'\xef\xbb\xbf{}', 'byte order mark, .*Save it as UTF-8 without'),
        ('{}'.encode('utf-16'), 'byte order mark'),
        (b'[1]', r"must hold the keys \[.*'annotations'\].*found: a list"),
        (b'{"images": [], "data": 1}', r"are missing \(found: \['data'"),
        (b'{"images": {}, "categories": 0, "annotations": 0}', 'images must be a list'),
        (b'{"images": [], "categories": [], "annotations": []}', 'holds no images'),
    ],
)
def test_files_that_are_not_coco(path, content, message):
    assert read_coco(path) == make_coco()
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_coco(path)
    assert str(path) in str(error.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match=r"no\.json' does not exist.*data_root or ann"):
        read_coco(tmp_path / 'no.json')
    with pytest.raises(DataError, match='cannot be read: .*Name a readable file'):
        read_coco(tmp_path)


def set_field(section, index, **fields):
    return lambda coco: coco[section][index].update(fields)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda c: c.update(categories=[]), 'holds no categories'),
        (lambda c: c['images'][2].pop('width'), r"entry 2 lacks \['width'\]"),
        (lambda c: c['annotations'].append(5), r"entry 5 lacks \['area', 'bbox'"),
        (set_field('images', 2, id=1), r'id must be unique in images.*\[1\]. Renumber'),
        (set_field('categories', 1, name='cell'), r"unique in categories.*\['cell'\]"),
        (set_field('annotations', 3, id=0), r'unique in annotations.*\[0\]'),
        (
            set_field('annotations', 3, image_id=77),
            'one of its images, but 1 annotations have none.* image_id 77. Remove',
        ),
        (set_field('annotations', 3, category_id=9), 'with category_id 9'),
        (set_field('annotations', 3, bbox=[1, 2]), r'3 has \[1, 2\]'),
        (set_field('annotations', 3, bbox=list('1234')), r"has \['1', .* Correct or"),
        (set_field('annotations', 3, bbox=[None] * 4), r'3 has \[None, '),
        (set_field('annotations', 3, area='9'), "3 has '9'"),
    ],
)
def test_files_that_contradict_themselves(path, damage, message):
    coco = make_coco()
    damage(coco)
    path.write_text(json.dumps(coco))
    with pytest.raises(DataError, match=message):
        read_coco(path)


# Classes


def test_classes_that_agree_and_a_part_of_the_categories(recwarn):
    check_classes(coco_set(), 3)
    check_classes(coco_set(list(CLASSES)))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="of 'cell' in 'a.json' are left out"):
        check_classes(coco_set(CLASSES[1:]), 2)


@pytest.mark.parametrize(
    ('classes', 'num_classes', 'message'),
    [
        (
            ('cell', 'plates', 'dust', 'mud'),
            4,
            "'a.json', but 'plates', 'mud' of its 4 classes are not; the file has "
            r"'cell', 'plate', 'dust'. Set metainfo=dict\(classes=\('cell', 'plate', "
            r"'dust'\)\) in the dataset and num_classes=3",
        ),
        (
            ('plate', 'cell', 'dust'),
            3,
            "order of 'a.json', 'cell', 'plate', 'dust', but are 'plate', 'cell'.*Set",
        ),
        (CLASSES, 80, 'roi has num_classes=80 .* with 3: .* Set num_classes=3 in'),
    ],
)
def test_classes_that_do_not_agree(classes, num_classes, message):
    with pytest.raises(DataError, match=message):
        check_classes(coco_set(classes), num_classes, 'roi')


def test_messages_stay_short_with_many_names():
    coco = dict(categories=[dict(id=n, name=f'kind{n}') for n in range(1203)])
    with pytest.raises(DataError, match="'kind7' and 1195 more") as error:
        check_classes(coco_set(coco=coco), 3)
    assert len(str(error.value)) < 500


# archval


def test_shared_images_are_counted_and_shown_whatever_their_ids():
    check_disjoint(coco_set(folder='train'), coco_set(folder='val'))
    val = make_coco(2)
    val['images'][0].update(id=90, file_name='./4.png')
    val['images'][1].update(file_name='new.png')
    for folders in (('', ''), ('x/', 'x')):
        with pytest.raises(
            DataError,
            match=r"1 of the 2 images of 'b.json' are in 'a.json' too.*"
            r"'./4.png' \(id 90\).*split_coco.py ANN --archval",
        ):
            check_disjoint(
                coco_set(folder=folders[0]),
                coco_set(coco=val, path='b.json', folder=folders[1]),
            )


def test_images_are_told_apart_whatever_links_lead_to_them(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'linked').symlink_to('images')
    (tmp_path / 'images/0.png').write_bytes(b'0')
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one/other.png').symlink_to(tmp_path / 'images/0.png')
    train = coco_set(folder=f'{tmp_path}/images')
    for folder, name in (('linked', '0.png'), ('one', 'other.png')):
        val = make_coco(1)
        val['images'][0]['file_name'] = name
        with pytest.raises(DataError, match='1 of the 1 images'):
            check_disjoint(train, coco_set(coco=val, folder=f'{tmp_path}/{folder}'))
    addressed = coco_set(folder='s3://bucket/./train')
    assert list(addressed.images)[0] == 's3:/bucket/train/0.png'


# Configs


@pytest.fixture
def cfg(path, tmp_path) -> dict:
    """A search config whose data is in order."""
    split_coco(path, 2, tmp_path)
    (tmp_path / 'images').mkdir()
    for n in range(6):
        cv2.imwrite(f'{tmp_path}/images/{n}.png', np.zeros((8, 8, 3), np.uint8))

    def loader(name):
        dataset = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=name,
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=CLASSES),
        )
        return dict(batch_size=2, dataset=dataset)

    return dict(
        model=dict(
            backbone=dict(num_classes=1000),
            rpn_head=dict(num_classes=1),
            roi_head=dict(
                bbox_head=[dict(num_classes=3), dict(num_classes=3)],
                mask_head=dict(num_classes=3),
            ),
        ),
        train_dataloader=loader('archtrain.json'),
        test_dataloader=loader('archval.json'),
        test_cfg=dict(
            type='mmcr.ArchSearchLoop', calibration_dataloader=loader('archtrain.json')
        ),
        test_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'archval.json')),
        val_dataloader=None,
    )


def dataset_of(cfg: dict, loader: str) -> dict:
    place = cfg['test_cfg'] if loader == 'calibration' else cfg
    return place[f'{loader}_dataloader']['dataset']


def refused(cfg: dict, message: str):
    with pytest.raises(DataError, match=message):
        check_config(Config(cfg))


def test_a_good_config_passes_and_reads_each_file_once(cfg, monkeypatch):
    read = []
    monkeypatch.setattr(
        'mmcr.data.coco._read_json',
        lambda path: read.append(Path(path).name) or json.loads(Path(path).read_text()),
    )
    cfg['test_evaluator'] = [dict(type='Other'), cfg['test_evaluator']]
    check_config(Config(cfg))
    check_config(cfg)
    assert sorted(read) == ['archtrain.json', 'archval.json']
    assert check_config(Config(dict(model=dict(type='A')))) == ''
    forget()
    check_config(cfg)
    assert len(read) == 4


def of(loader, **fields):
    return lambda cfg: dataset_of(cfg, loader).update(fields)


train = partial(of, 'train')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (train(ann_file='gone.json'), r"gone\.json' does not exist"),
        (of('calibration', ann_file='gone.json'), 'gone'),
        (of('test', ann_file='gone.json'), 'gone'),
        (
            lambda c: c['model']['roi_head']['bbox_head'][1].update(num_classes=80),
            r'roi_head.bbox_head\[1\] .*=80',
        ),
        (train(metainfo=None), "'person', .*of its 80 classes are not"),
        (train(metainfo=dict(classes='cell')), r"'cell'. Write \('cell',\) for"),
        (train(data_prefix=dict(img='no/')), "image folder '.*no/' does not exist"),
        (train(data_prefix=dict(img='')), r"'.*\d.png' does not.*Correct.* in train"),
        (train(data_prefix={}), r'train_dataloader must name.*data_prefix=dict\('),
        (
            train(data_prefix='i/'),
            r"data_prefix of train.* but is 'i/'. Write .*'i/'\)",
        ),
        (train(data_prefix=dict(img=3)), 'must be texts, .*CocoDataset is 3'),
        (train(metainfo=['cell']), r"must be a mapping.*\['cell'\]. Write metainfo="),
        (
            lambda c: c['test_evaluator'].update(ann_file='x'),
            "val.json', but reads 'x'. Set",
        ),
    ],
)
def test_a_config_with_one_fault(cfg, damage, message):
    damage(cfg)
    refused(cfg, message)


def test_wrapped_datasets_are_checked(cfg):
    def wrapped(inner):
        repeated = dict(type='RepeatDataset', times=2, dataset=inner)
        return dict(type='ConcatDataset', datasets=[good, repeated])

    good = dataset_of(cfg, 'train')
    cfg['train_dataloader']['dataset'] = wrapped(good)
    check_config(Config(cfg))
    cfg['train_dataloader']['dataset'] = wrapped({**good, 'ann_file': 'gone.json'})
    refused(cfg, 'gone')


@pytest.mark.parametrize(
    'change',
    [
        dict(type='NotOfMMDet'),
        dict(type='mmdet.BaseSegDataset'),
        dict(backend_args=dict(backend='petrel')),
        dict(data_root='s3://bucket'),
    ],
)
def test_other_datasets_are_skipped(cfg, change):
    dataset_of(cfg, 'train').update(ann_file='gone.json')
    dataset_of(cfg, 'train').update(change)
    check_config(Config(cfg))


def test_absolute_and_relative_paths(cfg, tmp_path, monkeypatch):
    dataset_of(cfg, 'train').update(
        data_root='',
        ann_file=str(tmp_path / 'archtrain.json'),
        data_prefix=dict(img=str(tmp_path / 'images')),
    )
    check_config(Config(cfg))
    monkeypatch.chdir(tmp_path)
    dataset_of(cfg, 'train').update(
        data_root=None, ann_file='archtrain.json', data_prefix=dict(img='images')
    )
    check_config(Config(cfg))


def test_classes_from_a_file(cfg, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(CLASSES) + '\n')
    dataset_of(cfg, 'train')['metainfo'] = dict(classes=str(names))
    check_config(Config(cfg))
    names.write_bytes('Käfig'.encode('latin-1'))
    refused(cfg, r"must be UTF-8, but '.*names.txt' is not: .* byte 0xe4 .*position 1")


def test_a_set_to_predict_on_only(cfg, tmp_path):
    coco = make_coco()
    del coco['annotations']
    (tmp_path / 'dev.json').write_text(json.dumps(coco))
    dataset_of(cfg, 'test')['ann_file'] = 'dev.json'
    cfg['test_evaluator']['ann_file'] = str(tmp_path / 'dev.json')
    cfg['test_cfg'] = dict(type='TestLoop')
    refused(cfg, r"\['annotations'\] are missing")
    cfg['test_evaluator']['format_only'] = True
    check_config(Config(cfg))


@pytest.mark.parametrize('trained', ['train', 'calibration'])
@pytest.mark.parametrize('phase', ['val', 'test'])
def test_archval_must_not_be_trained_or_calibrated_on(cfg, trained, phase):
    cfg[f'{phase}_dataloader'] = cfg['test_dataloader']
    cfg['test_cfg']['type'] = 'TestLoop'
    dataset_of(cfg, trained)['ann_file'] = 'all.json'
    check_config(Config(copy.deepcopy(cfg)))
    loop = {'val': 'ArchValLoop', 'test': 'mmcr.ArchSearchLoop'}[phase]
    cfg.setdefault(f'{phase}_cfg', {})['type'] = loop
    refused(cfg, "2 of the 2 images of '.*archval.json'")


def test_the_images_that_a_set_uses(cfg, tmp_path, quiet_mmdet):
    dataset = dataset_of(cfg, 'test')
    both = dict(type='ConcatDataset', datasets=[dataset, dataset_of(cfg, 'train')])
    whole = {f'{tmp_path}/images/{n}.png' for n in range(6)}
    assert image_files(both, 'test_dataloader') == whole
    held = image_files(dataset, 'test_dataloader')
    assert len(held) == 2 and held < whole
    (tmp_path / 'linked').symlink_to('images')
    for change, count in (
        (dict(data_prefix=dict(img='linked')), 2),
        (dict(indices=1), 1),
    ):
        used = image_files({**dataset, **change}, 'test_dataloader')
        assert used <= held and len(used) == count
    for change in (
        dict(backend_args=dict(backend='petrel')),
        dict(type='mmdet.BaseSegDataset'),
    ):
        other = dict(type='ConcatDataset', datasets=[dataset, {**dataset, **change}])
        assert image_files(other, 'test_dataloader') is None


# The command line


def test_user_errors_are_one_line_and_others_keep_their_traceback(capsys):
    @user_errors()
    def main(error):
        raise error

    with pytest.raises(SystemExit) as end:
        main(UserError('a must be 1,\nbut got 2'))
    assert end.value.code == 1
    assert capsys.readouterr() == ('', 'error: a must be 1, but got 2\n')
    with pytest.raises(KeyError):
        main(KeyError('ours'))


def test_the_room_needs_neither_torch_nor_mmdet():
    script = 'import sys; sys.modules.update(mmdet=None, torch=None)\nimport mmcr.data'
    subprocess.run(
        [sys.executable, '-c', script], cwd=Path(__file__).parents[2], check=True
    )
