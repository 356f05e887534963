import copy
import json
import os
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from config_files import read
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.datasets.dataset_wrappers import ConcatDataset
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from mmcr.data import CLASSES, DataError, read_coco, split_coco, write_shapes
from mmcr.scoring.loaders import build_loader
from mmcr.workflow.datasets import scale_lr, search_data

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
SCORED = [
    LOAD[0],
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    LOAD[1],
    dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'scale_factor')),
]


@contextmanager
def changed(path: Path):
    coco = json.loads(path.read_text())
    yield coco
    path.write_text(json.dumps(coco))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Two sets to train on, whose ids overlap and mean other things, and one more."""
    root = tmp_path_factory.mktemp('data')
    write_shapes(root, 20, (64, 64), split='train')
    write_shapes(root, 10, (64, 64), split='val')
    more = write_shapes(root, 10, (64, 64), split='more')
    with changed(more) as coco:
        for category in coco['categories']:
            category['id'] += 70
        for annotation in coco['annotations']:
            annotation['category_id'] += 70
    return root


@pytest.fixture
def data(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / 'data'))


def coco_set(root: Path, split: str = 'train', **options) -> dict:
    cfg = dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file=f'{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=LOAD,
    )
    return {**cfg, **options}


def config(root: Path, dataset: dict | None = None) -> Config:
    def loader(dataset, **sampler):
        return dict(batch_size=4, num_workers=0, sampler=sampler, dataset=dataset)

    train = dataset or coco_set(root)
    val = coco_set(root, 'val', pipeline=SCORED, test_mode=True)
    return Config(
        dict(
            train_dataloader=loader(train, type='ClassAwareSampler'),
            val_dataloader=loader(val, type='DefaultSampler', shuffle=False),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
        )
    )


def built(loader: dict):
    return DATASETS.build(copy.deepcopy(loader['dataset']))


@pytest.mark.parametrize('folder', ['s3://bucket/train/', 'https://host/train/'])
def test_an_address_of_images_stays(folder, data, tmp_path):
    cfg = config(data, coco_set(data, data_prefix=dict(img=folder)))
    found = search_data(cfg, 4, tmp_path)
    for loader in found.train_dataloader, found.archval_dataloader:
        assert all(path.startswith(folder) for path in paths(loader))


def infos(loader: dict) -> list[dict]:
    dataset = built(loader)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def paths(loader: dict) -> set[str]:
    return {info['img_path'] for info in infos(loader)}


def perfect_ap(found) -> float:
    """Of the annotated boxes, as the data set labels them, through the evaluator."""
    metric = METRICS.build(found.evaluator)
    metric.dataset_meta = built(found.archval_dataloader).metainfo
    images = infos(found.archval_dataloader)
    for info in images:
        boxes = np.array([i['bbox'] for i in info['instances']]).reshape(-1, 4)
        labels = [i['bbox_label'] for i in info['instances']]
        instances = dict(
            bboxes=torch.as_tensor(boxes),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.ones(len(labels)),
        )
        shape = (info['height'], info['width'])
        sample = dict(pred_instances=instances, img_id=info['img_id'], ori_shape=shape)
        metric.process({}, [sample])
    return metric.evaluate(len(images))['coco/bbox_mAP']


def wrapped(kind, dataset, **options):
    return dict(type=kind, dataset=dataset, **options)


def concat(*datasets, kind='ConcatDataset'):
    return dict(type=kind, datasets=list(datasets))


MOSAIC = dict(type='Mosaic', img_scale=(64, 64))
balanced = partial(wrapped, 'ClassBalancedDataset', oversample_thr=1e-3)
mixed = partial(wrapped, 'MultiImageMixDataset', pipeline=[MOSAIC])
repeated = partial(wrapped, 'RepeatDataset', times=2)
SCOPED, LAZY, CLASS = (
    dict(type=kind)
    for kind in ('mmdet.CocoDataset', 'mmdet.datasets.coco.CocoDataset', CocoDataset)
)
WRAPPED = [  # number of sets, how often each is seen (None where that varies)
    (lambda one, two: repeated(one | SCOPED), 1, 2),
    (lambda one, two: balanced(one | LAZY), 1, None),
    (lambda one, two: mixed(one), 1, 1),
    (lambda one, two: concat(one, two | CLASS, kind=ConcatDataset), 2, 1),
    (lambda one, two: mixed(repeated(concat(balanced(one), repeated(two)))), 2, None),
]


@pytest.mark.parametrize(
    ('wrap', 'number', 'times'),
    WRAPPED,
    ids=['repeated', 'balanced', 'mosaic', 'two', 'nested'],
)
def test_inner_sets_are_split_and_wrappers_stay(wrap, number, times, data, tmp_path):
    cfg = config(data, wrap(coco_set(data), coco_set(data, 'more')))
    before = {path: path.read_bytes() for path in data.glob('*.json')}
    found = search_data(cfg, 6, tmp_path / 'run')

    images = {1: 20, 2: 30}[number]
    trained, held = paths(found.train_dataloader), paths(found.archval_dataloader)
    assert len(held) == 6 == len(infos(found.archval_dataloader))
    assert len(trained) == images - 6
    if times:
        assert len(infos(found.train_dataloader)) == times * (images - 6)
    assert trained == paths(found.calibration_dataloader)
    assert not trained & held
    assert all(map(os.path.isfile, held))
    splits = [Path(path).parent.name for path in held]
    assert splits.count('more') == {1: 0, 2: 2}[number]
    assert perfect_ap(found) == pytest.approx(1)

    plural = 's' if number > 1 else ''
    assert found.summary == (
        f'{images} images in {number} set{plural}: {images - 6} to train on, '
        '6 to score on (seed 0)'
    )
    written = tmp_path / 'run/annotations'
    assert [path.parent for path in found.files] == [written] * (number + 1)
    assert {path: path.read_bytes() for path in data.glob('*.json')} == before
    wrapper, old = found.train_dataloader['dataset'], cfg.train_dataloader['dataset']
    assert wrapper['type'] == old['type']
    assert wrapper.keys() == old.keys()
    for loader in (found.archval_dataloader, found.calibration_dataloader):
        batch = next(iter(build_loader(loader, 'loader')))
        assert len(batch['inputs']) == 4
        assert batch['inputs'][0].shape == (3, 64, 64)


def test_loaders_keep_the_form_of_the_users(data, tmp_path):
    cfg = config(data)
    found = search_data(cfg, 6, tmp_path)
    for new, old in (
        (found.train_dataloader, cfg.train_dataloader),
        (found.archval_dataloader, cfg.val_dataloader),
        (found.calibration_dataloader, cfg.val_dataloader),
    ):
        assert {**new, 'dataset': 0} == {**old.to_dict(), 'dataset': 0}
    for loader in (found.archval_dataloader, found.calibration_dataloader):
        assert loader['dataset']['pipeline'] == SCORED
    assert found.archval_dataloader['dataset']['test_mode']
    assert found.calibration_dataloader['dataset']['filter_cfg']
    archtrain, archval = map(str, found.files)
    assert found.train_dataloader['dataset']['ann_file'] == archtrain
    assert found.evaluator == dict(
        type='mmcr.UnroundedCocoMetric', ann_file=archval, metric='bbox'
    )
    # what is left of a config that says as little as it can
    cfg.val_evaluator = cfg.val_dataloader = None
    with pytest.raises(DataError, match='no val_dataloader and no test_dataloader'):
        search_data(cfg, 6, tmp_path)
    cfg.test_dataloader = config(data).val_dataloader
    assert search_data(cfg, 6, tmp_path) == found


def test_equal_input_gives_the_same_files_and_a_seed_others(data, tmp_path):
    cfg = config(data, concat(coco_set(data), coco_set(data, 'more')))
    first = search_data(cfg, 6, tmp_path / 'a')
    times = [path.stat().st_mtime_ns for path in first.files]
    assert search_data(cfg, '6', tmp_path / 'a') == first
    assert [path.stat().st_mtime_ns for path in first.files] == times
    names = ['archtrain_1.json', 'archtrain_2.json', 'archval.json']
    assert [path.name for path in first.files] == names

    again = search_data(cfg, 6, tmp_path / 'b')
    other = search_data(cfg, 6, tmp_path / 'c', seed=1)
    contents = [[p.read_bytes() for p in each.files] for each in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]
    search_data(cfg, 5, tmp_path / 'a')  # a second thought is none too late
    assert len(read_coco(first.files[2])['images']) == 5


def test_one_set_is_split_as_by_the_tool(data, tmp_path):
    ours = search_data(config(data), 6, tmp_path / 'a', seed=3).files
    tools = split_coco(data / 'train.json', 6, tmp_path / 'b', seed=3)
    assert [f.read_bytes() for f in ours] == [f.read_bytes() for f in tools]


@pytest.mark.parametrize(
    ('images', 'expected'), [(20, 10), (120, 50), (700, 70), (60_000, 5000)]
)
def test_archval_left_out(images, expected, tmp_path):
    (tmp_path / 'train.json').write_text(json.dumps(many_images(images)))
    (tmp_path / 'train').mkdir()
    found = search_data(config(tmp_path), None, tmp_path / 'run')
    summary = f'{images:,} images in 1 set: {images - expected:,} to train on, '
    assert found.summary == f'{summary}{expected:,} to score on (seed 0)'


def many_images(count: int) -> dict:
    box = dict(category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    size = dict(width=64, height=64)
    return dict(
        images=[dict(id=n, file_name=f'{n}.png', **size) for n in range(count)],
        annotations=[dict(id=n, image_id=n, **box) for n in range(count)],
        categories=[dict(id=n, name=name) for n, name in enumerate(CLASSES, 1)],
    )


@pytest.mark.parametrize('indices', [8, -8, [1, 3, 5, 7, 9, 11, 13, 15]])
def test_the_images_that_indices_choose_are_split(indices, data, tmp_path):
    cfg = config(data, coco_set(data, indices=indices))
    used = paths(cfg.train_dataloader)
    found = search_data(cfg, 3, tmp_path)
    trained, held = paths(found.train_dataloader), paths(found.archval_dataloader)
    assert (len(used), len(trained), len(held)) == (8, 5, 3)
    assert trained | held == used
    whole = search_data(cfg, str(data / 'val.json'), tmp_path)
    assert paths(whole.train_dataloader) == used


def test_where_images_and_annotations_lie(data, tmp_path, monkeypatch):
    """As Roboflow lays them, relative to the working directory, and without a root."""
    shutil.move(data / 'train.json', data / 'train/_annotations.coco.json')
    monkeypatch.chdir(data)
    ann_file = 'train/_annotations.coco.json'
    for place in (
        dict(data_root='', ann_file=ann_file),
        dict(data_root=None, ann_file=str(data / ann_file)),
        dict(data_root='train', ann_file='_annotations.coco.json'),
    ):
        prefix = '' if place['data_root'] else 'train/'
        dataset = coco_set(data, data_prefix=dict(img=prefix), **place)
        found = search_data(config(data, dataset), 6, tmp_path / 'run')
        assert os.path.isabs(found.train_dataloader['dataset']['ann_file'])
        images = paths(found.train_dataloader) | paths(found.archval_dataloader)
        assert len(images) == 20
        assert all(os.path.isabs(path) and os.path.isfile(path) for path in images)


# Images that are held out already


def test_a_given_file_of_training_or_validation_images(data, tmp_path):
    archtrain, archval = split_coco(data / 'train.json', 5, data)
    cfg = config(data, repeated(coco_set(data, ann_file='archtrain.json')))
    for path, images in ((archval, 5), (data / 'val.json', 10)):
        found = search_data(cfg, str(path), tmp_path)
        assert found.files == ()
        assert len(infos(found.train_dataloader)) == 2 * 15
        assert len(infos(found.archval_dataloader)) == images
        assert all(map(os.path.isfile, paths(found.archval_dataloader)))
        assert perfect_ap(found) == pytest.approx(1)
        assert found.summary == (
            f'15 images in 1 set to train on, {images} of {path} to score on'
        )
    with pytest.raises(DataError, match='5 of the 5 images .* are in .*train.json'):
        search_data(config(data), archval, tmp_path)


def test_a_given_file_of_images_in_two_folders(data, tmp_path):
    _, archval = split_coco(data / 'train.json', 5, data)
    with changed(archval) as coco, changed(data / 'val.json') as val:
        for image in val['images'][:2]:
            coco['images'].append({**image, 'id': image['id'] + 100})
    cfg = config(data, coco_set(data, ann_file='archtrain.json'))
    found = search_data(cfg, archval, tmp_path)
    assert found.files == (tmp_path / 'annotations/archval.json',)
    assert len(paths(found.archval_dataloader)) == 7
    assert all(map(os.path.isfile, paths(found.archval_dataloader)))
    assert perfect_ap(found) == pytest.approx(1)


def test_validation_images_named_as_those_to_train_on(data, tmp_path):
    with changed(data / 'val.json') as coco:
        for image in coco['images']:
            new = image['file_name'].replace('val', 'train')
            os.rename(data / 'val' / image['file_name'], data / 'val' / new)
            image['file_name'] = new
    found = search_data(config(data), data / 'val.json', tmp_path)
    assert {Path(p).parent for p in paths(found.archval_dataloader)} == {data / 'val'}


def test_a_given_file_whose_names_are_those_of_two_folders(data, tmp_path):
    for split in 'more', 'val':  # 0000.png, as in each folder of many exports
        with changed(data / f'{split}.json') as coco:
            for image in coco['images']:
                new = image['file_name'].removeprefix(f'{split}_')
                os.rename(data / split / image['file_name'], data / split / new)
                image['file_name'] = new
    cfg = config(data, concat(coco_set(data), coco_set(data, 'more')))
    val = search_data(cfg, data / 'val.json', tmp_path)  # knows its folder
    assert {Path(p).parent for p in paths(val.archval_dataloader)} == {data / 'val'}
    given = shutil.copy(data / 'val.json', data / 'given.json')
    message = r"of 10 10, for .*'000000.png'.*\['.*/more', '.*/val'\]. Write absolute"
    with pytest.raises(DataError, match=message):
        search_data(cfg, given, tmp_path)
    with changed(Path(given)) as coco:
        for image in coco['images']:
            image['file_name'] = str(data / 'val' / image['file_name'])
    named = search_data(cfg, given, tmp_path)
    assert paths(named.archval_dataloader) == paths(val.archval_dataloader)


def test_a_given_file_of_one_folder_under_two_paths(data, tmp_path):
    (data / 'linked').symlink_to('val')
    cfg = config(data)
    more = coco_set(data, 'val', data_prefix=dict(img='linked/'), test_mode=True)
    cfg.val_dataloader.dataset = concat(cfg.val_dataloader.dataset, more)
    given = shutil.copy(data / 'val.json', data / 'given.json')
    found = search_data(cfg, given, tmp_path)
    assert {Path(p).parent for p in paths(found.archval_dataloader)} == {data / 'val'}


# What cannot be used


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(type='VOCDataset'), r'COCO detection.*VOCDataset.*pascal_voc.py DEVKIT'),
        (dict(type='CrowdHumanDataset'), 'crowdhuman2coco.py --input'),
        (dict(type='XMLDataset'), 'has a XMLDataset. Export them as COCO'),
        (dict(type='OpenImagesDataset'), 'has a OpenImagesDataset'),
        (dict(type='mmdet.CocoPanopticDataset'), 'has a CocoPanopticDataset'),
        (dict(type='LVISV1Dataset'), 'cannot be scored with .* has LVISV1Dataset'),
        (dict(type='MyDataset'), "registered, but .* has 'MyDataset'.*custom_imports"),
        (dict(ann_file='gone.json'), r'gone\.json. does not exist'),
        (dict(data_prefix={}), 'must name its image folder'),
        (dict(data_prefix='train/'), "data_prefix of train.*dict.img='train/'"),
        (dict(metainfo=dict(classes=('cross',) * 2)), 'must stand in the order'),
    ],
)
def test_sets_that_cannot_be_split(change, message, data, tmp_path):
    cfg = config(data, repeated(coco_set(data, **change)))
    with pytest.raises(DataError, match=message) as error:
        search_data(cfg, 6, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
    scripts = [word for word in str(error.value).split() if word.endswith('.py')]
    assert len(scripts) == ('.py' in message)
    assert all(Path(script).is_file() for script in scripts)


def test_sets_of_lvis_under_other_names(data, tmp_path):
    @DATASETS.register_module(force=True)
    class Sparse(LVISV1Dataset):
        pass

    @DATASETS.register_module(force=True)
    class LVISAnnotatedCompletely(CocoDataset):
        pass

    with pytest.raises(DataError, match='cannot be scored with .* has Sparse'):
        search_data(config(data, coco_set(data, type='Sparse')), 6, tmp_path)
    complete = coco_set(data, type='LVISAnnotatedCompletely')
    assert search_data(config(data, complete), 6, tmp_path).archval_images == 6


@pytest.mark.parametrize('archval', [0, -1, 20, 10**6, True, 2.5])
def test_an_archval_that_leaves_nothing(archval, data, tmp_path):
    with pytest.raises(DataError, match=f'archval={archval}.* 20 images. .*1 to 19'):
        search_data(config(data), archval, tmp_path)


def test_every_set_keeps_an_image(data, tmp_path):
    cfg = config(data, concat(coco_set(data), coco_set(data, 'more')))
    files = search_data(cfg, 28, tmp_path).files
    assert [len(read_coco(file)['images']) for file in files] == [1, 1, 28]
    with pytest.raises(DataError, match='in every set.*=29.*30 images.*1 to 28'):
        search_data(cfg, 29, tmp_path)


def test_an_image_in_two_sets(data, tmp_path):
    twice = concat(coco_set(data), repeated(coco_set(data)))
    with pytest.raises(DataError, match='20 are in .*List each once; RepeatDataset'):
        search_data(config(data, twice), 6, tmp_path)
    split_coco(data / 'train.json', 4, data)
    part = coco_set(data, ann_file='archval.json')
    with pytest.raises(DataError, match='4 are in .*train.json. and in .*archval'):
        search_data(config(data, concat(coco_set(data), part)), 6, tmp_path)


def test_an_image_under_two_paths(data, tmp_path):
    linked = tmp_path / 'linked'
    linked.symlink_to(data)
    twice = concat(coco_set(data), coco_set(linked))
    with pytest.raises(DataError, match='two sets .* 20 are in'):
        search_data(config(data, twice), 6, tmp_path / 'run')
    (data / 'train/sub').symlink_to('.')
    with changed(data / 'train.json') as coco:
        first = coco['images'][0]
        coco['images'].append(
            {**first, 'id': 99, 'file_name': f'sub/{first["file_name"]}'}
        )
    with pytest.raises(DataError, match='1 images more than once.*Merge'):
        search_data(config(data), 6, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_sets_of_other_classes(data, tmp_path):
    other = coco_set(data, 'more', metainfo=dict(classes=CLASSES[:3]))
    with (
        pytest.warns(UserWarning, match='are left out'),
        pytest.raises(DataError, match='must have the same classes'),
    ):
        search_data(config(data, concat(coco_set(data), other)), 6, tmp_path)


def no_masks(coco):
    for annotation in coco['annotations'][::2]:
        annotation['segmentation'] = []


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda c: c.update(annotations=[]), 'boxes to train on, but of 0 annotations'),
        (lambda c: [a.update(iscrowd=1) for a in c['annotations']], 'none is of use'),
        (lambda c: [a.update(area=0) for a in c['annotations']], 'none is of use'),
        (lambda c: [a.pop('iscrowd') for a in c['annotations']], None),
        (no_masks, r'\(segm\) wants masks: .* of those to score on have none'),
    ],
)
def test_annotations_without_use(damage, message, data, tmp_path):
    with changed(data / 'train.json') as coco:
        damage(coco)
    cfg = config(data)
    cfg.val_evaluator = [dict(type='Other'), dict(type='CocoMetric', metric=['segm'])]
    if message is None:
        metric = search_data(cfg, 6, tmp_path).evaluator['metric']
        assert metric == ['bbox', 'segm']
        return
    with pytest.raises(DataError, match=message):
        search_data(cfg, 6, tmp_path)


def test_given_images_without_objects_or_nowhere(data, tmp_path):
    with changed(data / 'val.json') as coco:
        coco['annotations'] = []
    with pytest.raises(DataError, match='boxes to score on'):
        search_data(config(data), data / 'val.json', tmp_path)
    (data / 'val/val_000003.png').unlink()
    with pytest.raises(DataError, match="1 of 10, for example 'val_000003.png'"):
        search_data(config(data), data / 'val.json', tmp_path)


def test_nothing_is_written_beside_the_data(data):
    (data / 'annotations').mkdir()
    shutil.move(data / 'train.json', data / 'annotations/train.json')
    cfg = config(data, coco_set(data, ann_file='annotations/train.json'))
    with pytest.raises(DataError, match='Choose another work dir'):
        search_data(cfg, 6, data)


def test_configs_without_training_images(tmp_path):
    with pytest.raises(DataError, match='needs training images'):
        search_data(Config(dict(train_dataloader=None)), 6, tmp_path)


# Learning rate


def test_the_rate_is_scaled_where_the_batch_is_another():
    cfg = read('faster_rcnn/faster-rcnn_cr-r50_fpn_1x_coco.py')
    assert scale_lr(cfg, 8) is None
    factor, said = scale_lr(cfg, 1)
    assert factor == 0.125
    assert said == (
        'The learning rate is for 16 images per update, but an update has 2 (2 per '
        'process): it is multiplied by 0.125.'
    )
    cfg.optim_wrapper.accumulative_counts = 4
    factor, said = scale_lr(cfg, 1)
    assert factor == 0.5 and 'has 8 (4 batches of 2 per process)' in said
    assert scale_lr(cfg, 2) is None
    cfg.auto_scale_lr.enable = True  # as mmengine does it
    assert scale_lr(cfg, 1)[0] == 0.125
    cfg.pop('auto_scale_lr')
    assert scale_lr(cfg, 1) is None
