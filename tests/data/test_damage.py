"""Data sets as people have them: each works, or is refused in one message."""

import copy
import json
import os
import shutil
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from config_files import CONFIGS
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image
from scripts import ROOT, run_script

from mmcr.data import CLASSES, DataError, check_config, write_shapes
from mmcr.data.images import image_count

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

NAN, INF = float('nan'), float('inf')
NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('damage')
    for split, count in (('train', 6), ('test', 3)):
        write_shapes(root, count, (64, 64), split=split)
    return root


@pytest.fixture
def data(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / 'data'))


@cache
def demo() -> Config:
    return Config.fromfile(f'{CONFIGS}/demo/shapes.py')


def config(root: Path, masks: bool = False) -> Config:
    """Of a detector that is trained on train and evaluated on test."""
    cfg = copy.deepcopy(demo())
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{root}/test.json'
    if masks:
        cfg.train_dataloader.dataset.pipeline[1].with_mask = True
        cfg.test_evaluator.metric = ['bbox', 'segm']
    return cfg


def damage(root: Path, change, split: str = 'train') -> None:
    path = root / f'{split}.json'
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def annotations(number=None, **fields):
    """Fields of all annotations, or of one; of an ellipsis, none."""

    def change(coco):
        for n, entry in enumerate(coco['annotations']):
            if number in (None, n):
                entry.update(copy.deepcopy(fields))
                for field, value in fields.items():
                    if value is ...:
                        del entry[field]

    return change


def images(number=None, **fields):
    def change(coco):
        chosen = coco['images'] if number is None else [coco['images'][number]]
        for entry in chosen:
            entry.update(fields)

    return change


def whole(**fields):
    return lambda coco: coco.update(fields)


def nested(depth: int) -> str:
    return '[' * depth + ']' * depth


BOX = r'bbox must be \[x, y, width, height\]'
REFUSED = dict(
    no_annotations=(whole(annotations=[]), 'boxes to train on, but of 0 annotations'),
    only_crowds=(annotations(iscrowd=1), r'none is of use \(\d+ crowd\)'),
    zero_area=(annotations(area=0), r'none is of use \(\d+ of no area\)'),
    no_height=(annotations(bbox=[3, 3, 9, -9]), r'\(\d+ below a pixel\)'),
    outside=(annotations(bbox=[64, 0, 9, 9]), r'\(\d+ outside of the image\)'),
    all_nan=(annotations(bbox=[NAN] * 4), r'\(\d+ NaN\)'),
    all_ignored=(annotations(ignore=1), r'\(\d+ to ignore\)'),
    text_size=(
        images(width='64'),
        r"width must be a whole number.* 6 of 6 images .*'train_000001.png' has '64'",
    ),
    null_size=(images(height=None), 'height must be a whole.* has None'),
    minus_size=(images(2, width=-1), r"1 of 6 images .*'train_000002.png' has -1"),
    part_size=(images(2, width=64.5), '1 of 6 .* 64.5'),
    nan_size=(images(2, width=NAN), '1 of 6 .* nan'),
    true_size=(images(2, width=True), '1 of 6 .* True'),
    other_size=(images(2, width=65), "'.*train_000002.png' is 64x64, not 65x64"),
    text_boxes=(annotations(bbox=list('1234')), BOX + r".* id 1 has \['1', '2'"),
    null_box=(annotations(2, bbox=[None] * 4), BOX + r'.* 1 of \d+ .*id 3 has \[None'),
    three=(annotations(2, bbox=[1, 2, 3]), BOX),
    infinite=(annotations(2, bbox=[1, 2, INF, 3]), BOX + '.*four finite'),
    huge=(annotations(2, bbox=[1, 2, 10**400, 3]), BOX),
    nested=(annotations(2, bbox=[[1, 2, 3, 4]]), BOX),
    booleans=(annotations(2, bbox=[True] * 4), BOX),
    dictionary=(annotations(2, bbox=dict(x=1)), BOX),
    no_box=(annotations(2, bbox=...), r"entry 2 lacks \['bbox'\]"),
    text_area=(annotations(2, area='9'), "area must be a finite number.* has '9'"),
    text_iscrowd=(annotations(iscrowd='0'), "iscrowd must be 0 or 1, .* has '0'"),
    null_image=(annotations(2, image_id=None), 'image_id must be a number or a text'),
    listed_image=(annotations(2, image_id=[1]), r'image_id must .* has \[1\]'),
    text_image=(annotations(2, image_id='1'), "annotation 3 with image_id '1'"),
    null_id=(images(2, id=None), 'id must be a number or a text.* has None'),
    nan_id=(images(2, id=NAN), 'id must be a number or a text.* has nan'),
    double_id=(images(2, id=1), r'id must be unique in images.*\[1\]'),
    null_name=(images(2, file_name=None), 'file_name must be a text.* 3 has None'),
    number_name=(images(2, file_name=7), 'file_name must be a text.* 3 has 7'),
    long_name=(images(2, file_name='n' * 5000), '1 of 6 cannot .* is no path'),
    null_byte=(images(2, file_name='a\0b'), '1 of 6 cannot .* is no path'),
    folder_name=(images(2, file_name='.'), '1 of 6 cannot be read.*is no file'),
    backslashes=(images(2, file_name='a\\b.png'), 'does not exist.* write slashes'),
    no_categories=(whole(categories=None), 'categories must be a list'),
    dictionary_of_annotations=(whole(annotations={}), 'annotations must be a list'),
    double_category=(
        lambda c: c['categories'].append(dict(id=99, name='triangle')),
        "name must be unique in categories.*'triangle'",
    ),
    null_category=(
        lambda c: c['categories'].append(dict(id=99, name=None)),
        'name must be a text',
    ),
)


@pytest.mark.parametrize('name', REFUSED)
def test_annotations_that_are_refused(data, name):
    change, message = REFUSED[name]
    damage(data, change)
    with pytest.raises(DataError, match=message) as error:
        check_config(config(data))
    assert len(str(error.value)) < 900 and 'train' in str(error.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (nested(10**5).encode(), 'is not JSON .*recursion'),
        (b'\x1f\x8b\x08', 'is compressed. Unpack it'),
        (b'\xef\xbb\xbf{}', 'byte order mark'),
        (b'1' * 5000, 'is not'),
    ],
)
def test_files_that_are_refused(data, content, message):
    (data / 'train.json').write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        check_config(config(data))
    assert len(str(error.value)) < 900


def renumbered(new):
    def change(coco):
        ids = {image['id']: new(image['id']) for image in coco['images']}
        for image in coco['images']:
            image['id'] = ids[image['id']]
        for entry in coco['annotations']:
            entry['image_id'] = ids[entry['image_id']]

    return change


WORK = dict(
    no_iscrowd=(annotations(iscrowd=...), ''),
    null_iscrowd=(annotations(iscrowd=None), ''),
    some_iscrowd=(annotations(1, iscrowd=...), ''),
    false_iscrowd=(annotations(iscrowd=False), ''),
    one_crowd=(annotations(1, iscrowd=1), 'left out: 1 crowd'),
    one_tiny=(annotations(1, bbox=[3, 3, 0, 5]), 'left out: 1 below a pixel'),
    one_nan=(annotations(1, bbox=[NAN] * 4, area=NAN), 'left out: 1 NaN'),
    ids_from_0=(lambda c: [a.update(id=i) for i, a in enumerate(c['annotations'])], ''),
    text_ids=(renumbered(str), 'image ids: str'),
    hashed_ids=(renumbered(lambda n: 2**63 - 3 + n), 'ids: 9223372036854775806 to'),
    float_sizes=(images(width=64.0, height=64.0), '6 decoded'),
    keypoints=(annotations(keypoints=[1, 2, 2], num_keypoints=1), ''),
    null_masks=(annotations(segmentation=None), ''),
    category_0=(
        lambda c: (
            c['categories'].insert(0, dict(id=0, name='all')),
            annotations(0, category_id=0)(c),
        ),
        r'left out: 1 of other classes',
    ),
)


@pytest.mark.filterwarnings('ignore:Annotations of .all.')
@pytest.mark.parametrize('name', WORK)
def test_annotations_that_work_are_understood_as_mmdet_does(data, name):
    change, said = WORK[name]
    damage(data, change)
    found = check_config(config(data)).splitlines()
    assert len(found) == 2 and said in found[0]
    assert found[1].startswith(f"val_dataloader, test_dataloader: '{data}/test.json'")
    built = DATASETS.build(config(data).train_dataloader.dataset)
    instances = [i for n in range(6) for i in built.get_data_info(n)['instances']]
    usable = sum(not instance['ignore_flag'] for instance in instances)
    assert f'6 images (6 decoded), {usable} boxes' in found[0]


# Masks

SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
MASKS = dict(
    empty=([], False),
    nothing=(None, False),
    four_numbers=([[1, 1, 9, 9]], False),
    odd=([[1, 1, 9, 1, 9, 9, 3]], False),
    flat=(SQUARE, False),
    text=([['1'] * 6], False),
    rle_of_other_size=(dict(size=[64, 65], counts=[64 * 65]), False),
    rle_too_short=(dict(size=[64, 64], counts=[64]), False),
    rle_without_counts=(dict(size=[64, 64]), False),
    square=([SQUARE], True),
    square_and_line=([SQUARE, [1, 1, 2, 2]], True),
    counts=(dict(size=[64, 64], counts=[9, 9, 64 * 64 - 18]), True),
    compressed=(dict(size=[64, 64], counts='0f0P3'), True),
)


@pytest.mark.parametrize('split', ('train', 'test'))
@pytest.mark.parametrize('name', MASKS)
def test_masks_must_be_there_where_they_are_wanted(data, name, split):
    value, good = MASKS[name]
    damage(data, annotations(1, segmentation=value), split)
    check_config(config(data))
    if good:
        check_config(config(data, masks=True))
    else:
        with pytest.raises(DataError, match=r'wants masks: .* 1 of \d+ .* id \[2\]'):
            check_config(config(data, masks=True))


def test_masks_of_boxes_that_no_network_is_trained_on(data):
    fields = dict(bbox=[3, 3, 0.5, 5], segmentation=[])
    damage(data, annotations(1, **fields))
    check_config(config(data, masks=True))
    damage(data, annotations(1, **fields), 'test')
    with pytest.raises(DataError, match='The metric segm wants masks'):
        check_config(config(data, masks=True))


# Evaluation


def test_boxes_to_evaluate_on(data):
    damage(data, annotations(iscrowd=1), 'test')
    cfg = config(data)
    with pytest.raises(DataError, match=r"boxes to score on, .*test.json' none is of"):
        check_config(cfg)
    cfg.val_evaluator = cfg.test_evaluator = None
    cfg.val_dataloader = cfg.test_dataloader = None
    check_config(cfg)


def test_a_filter_that_leaves_no_image(data):
    cfg = config(data)
    cfg.train_dataloader.dataset.filter_cfg.min_size = 65
    with pytest.raises(DataError, match='min_size=65 leaves out all 6, .* 64 pixels'):
        check_config(cfg)


# Images


def picture(data: Path, number: int = 2) -> Path:
    return data / f'train/train_{number:06}.png'


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 32)).save(path, 'jpeg', exif=exif)


FILES = dict(
    missing=(Path.unlink, "1 of 6 cannot be read: '.*000002.png' does not exist"),
    empty=(lambda p: p.write_bytes(b''), r"1 of 6 .* '.*2.png' is empty \(0 bytes\)"),
    folder=(lambda p: (p.unlink(), p.mkdir()), '1 of 6 .* is no file'),
    broken_link=(lambda p: (p.unlink(), p.symlink_to('gone')), 'does not exist'),
    text=(lambda p: p.write_text('no image'), 'of 6 that were tried 1 are no images'),
    half=(lambda p: p.write_bytes(p.read_bytes()[:40]), 'tried 1 are no images or dam'),
    cut_short=(
        lambda p: p.write_bytes(cv2.imencode('.jpg', NOISE)[1].tobytes()[:-900]),
        '1 are no images or damaged',
    ),
    smaller=(
        lambda p: Image.new('RGB', (32, 64)).save(p),
        "1 have not: '.*000002.png' is 32x64, not 64x64. Correct width",
    ),
)


@pytest.mark.parametrize('name', FILES)
def test_image_files_that_are_refused(data, name):
    spoil, message = FILES[name]
    spoil(picture(data))
    with pytest.raises(DataError, match=message):
        check_config(config(data))


def test_all_images_are_looked_at_and_counted(data):
    for number in (1, 3, 4, 5):
        picture(data, number).unlink()
    with pytest.raises(DataError, match=r'4 of 6 .* and 1 more\. .*train_dataloader'):
        check_config(config(data), decode=0)
    shutil.rmtree(data / 'train')
    with pytest.raises(DataError, match=f"image folder '{data}/train/' does not exist"):
        check_config(config(data))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read all files')
def test_images_that_may_not_be_read(data):
    picture(data).chmod(0)
    with pytest.raises(DataError, match='may not be read'):
        check_config(config(data))


def test_images_are_turned_as_mmcv_turns_them(data):
    turned(picture(data))
    damage(data, images(2, width=32, height=64))
    check_config(config(data))
    damage(data, images(2, width=64, height=32))
    with pytest.raises(DataError, match='is 32x64, not 64x32.* EXIF orientation'):
        check_config(config(data))
    cfg = config(data)
    cfg.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    check_config(cfg)


def test_the_sample_is_as_large_as_asked_for(data):
    picture(data).write_text('no image')
    assert '(none decoded)' in check_config(config(data), decode=0)
    assert '(1 decoded)' in check_config(config(data), decode=1)
    with pytest.raises(DataError, match='no images or damaged'):
        check_config(config(data), decode=None)
    assert [image_count(text) for text in ('all', 'none', '7')] == [None, 0, 7]
    for text in ('-1', 'some', '1.5'):
        with pytest.raises(ValueError):
            image_count(text)


def test_a_set_without_a_file_of_annotations(data):
    cfg = config(data)
    del cfg.train_dataloader.dataset.ann_file
    with pytest.raises(DataError, match='cannot be read: Is a directory'):
        check_config(cfg)


def test_images_that_are_read_in_another_way_are_not_decoded(data):
    cfg = config(data)
    cfg.train_dataloader.dataset.pipeline[0].type = 'LoadMultiChannelImageFromFiles'
    assert '6 images (none decoded)' in check_config(cfg)


def test_images_that_may_be_missing_or_elsewhere(data):
    cfg = config(data)
    picture(data).write_text('no image')
    loads = cfg.train_dataloader.dataset.pipeline[0]
    loads.ignore_empty = True
    assert '1 of them no images and left out' in check_config(cfg)
    loads.backend_args = dict(backend='petrel')
    assert '6 images (not looked at, since they are not on a' in check_config(cfg)
    cfg.train_dataloader.dataset.backend_args = dict(backend='petrel')
    assert 'train_dataloader: not looked at, since its files' in check_config(cfg)


@pytest.mark.parametrize('folder', ['s3://bucket/train/', 'https://host/train/'])
def test_images_at_an_address(data, folder):
    """Their annotations are here, and looked at."""
    cfg = config(data)
    train = cfg.train_dataloader.dataset
    train.data_prefix = dict(img=folder)
    assert '6 images (not looked at, since they are not on a' in check_config(cfg)
    damage(data, annotations(bbox=[1]))
    with pytest.raises(DataError, match='bbox must be'):
        check_config(cfg)


@pytest.mark.parametrize(
    ('name', 'mode'),
    [
        ('a.png', 'RGBA'),
        ('a.png', 'P'),
        ('a.png', 'I;16'),
        ('a.tif', 'RGB'),
        ('a.jpg', 'CMYK'),
        ('ä ß 図.png', 'RGB'),
    ],
)
def test_images_of_all_kinds(data, name, mode):
    places = [name, str(data / f'train/2 {name}'), f'../train/3 {name}']
    for number, place in enumerate(places):
        Image.new(mode, (64, 64)).save(data / 'train' / place)
        damage(data, images(number, file_name=place))
    assert '6 images (6 decoded)' in check_config(config(data))


# Sets of other forms


@DATASETS.register_module()
class RenamedDataset(CocoDataset):
    """Its images have another ending than its file says."""

    def parse_data_info(self, raw_data_info):
        image = raw_data_info['raw_img_info']
        image['file_name'] = image['file_name'].replace('.jpg', '.png')
        return super().parse_data_info(raw_data_info)


def test_sets_that_name_their_images_in_another_way(data):
    damage(data, lambda c: [i.update(file_name=ending(i)) for i in c['images']])
    cfg = config(data)
    with pytest.raises(DataError, match=r"6 of 6 cannot be read: '.*0.jpg' does not"):
        check_config(cfg)
    cfg.train_dataloader.dataset.type = 'RenamedDataset'
    assert '6 images (6 decoded)' in check_config(cfg)


def ending(image: dict) -> str:
    return image['file_name'].replace('.png', '.jpg')


def test_sets_to_predict_on_have_no_annotations(data):
    damage(data, whole(annotations=None), 'test')
    cfg = config(data)
    with pytest.raises(DataError, match='annotations must be a list'):
        check_config(cfg)
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].format_only = True
    assert 'boxes' not in check_config(cfg).splitlines()[1]


XML = (
    '<annotation><size><width>64</width><height>64</height></size>{}</annotation>',
    '<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>5</xmin>'
    '<ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>',
)


def voc(root: Path, *names: str, difficult: int = 0) -> dict:
    """A set in VOC's form, an object of each name in each of its two images."""
    for folder in ('JPEGImages', 'Annotations', 'ImageSets'):
        (root / folder).mkdir(exist_ok=True)
    objects = ''.join(XML[1].format(name, difficult) for name in names)
    for n in ('1', '2'):
        cv2.imwrite(f'{root}/JPEGImages/{n}.jpg', np.zeros((64, 64, 3), np.uint8))
        (root / f'Annotations/{n}.xml').write_text(XML[0].format(objects))
    (root / 'ImageSets/all.txt').write_text('1\n2\n')
    return dict(
        type='XMLDataset',
        data_root=f'{root}/',
        ann_file='ImageSets/all.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[dict(type='LoadImageFromFile')],
    )


@pytest.mark.parametrize('loader', ('train', 'test'))
def test_sets_in_the_form_of_voc(data, loader):
    def check(*names, **options):
        cfg = config(data)
        dataset = cfg[f'{loader}_dataloader'].dataset = voc(data, *names, **options)
        cfg.test_evaluator = dict(type='VOCMetric')
        if loader == 'test':
            dataset.update(test_mode=True)
            dataset.pop('filter_cfg')
        return check_config(cfg)

    found = check('triangle', 'cross', 'bird')
    assert '2 images (2 decoded), 4 boxes' in found
    assert "(left out: 2 of other classes ('bird'))" in found
    with pytest.raises(DataError, match="class 'triangle' is 'Triangle' in them, 2 ti"):
        check('Triangle', 'cross')
    with pytest.raises(DataError, match=r"none is of use \(2 of other .*'bird'\)\)"):
        check('bird')
    with pytest.raises(DataError, match=r'none is of use \(2 to ignore\)'):
        check('triangle', difficult=1)
    with pytest.raises(DataError, match='of 0 annotations'):
        check()
    (data / 'JPEGImages/2.jpg').write_bytes(b'')


def test_sets_in_the_form_of_voc_with_files_that_are_gone(data):
    cfg = config(data)
    cfg.train_dataloader.dataset = voc(data, 'triangle')
    (data / 'JPEGImages/2.jpg').unlink()
    with pytest.raises(DataError, match=r"1 of 2 cannot be read: '.*2.jpg' does not"):
        check_config(cfg)
    (data / 'Annotations/1.xml').write_text('<')
    with pytest.raises(DataError, match=r'mmdet \(XMLDataset\) stops with ParseError'):
        check_config(cfg)
    cfg.train_dataloader.dataset.ann_file = 'gone.txt'
    with pytest.raises(DataError, match='stops with FileNotFoundError: .*gone.txt'):
        check_config(cfg)


# The tools


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        ('train', []),
        ('search', ['checkpoint.pth']),
        ('test', ['checkpoint.pth', '--check-images', 'none']),
        ('reallocate', ['--write-only', '--check-images', 'all']),
    ],
)
def test_the_tools_look_first(data, tmp_path, tool, arguments):
    picture(data).unlink()
    path = tmp_path / 'mine.py'
    config(data).dump(path)
    arguments = [path, *arguments, '--work-dir', tmp_path / 'work']
    end = run_script(ROOT / f'tools/{tool}.py', *arguments)
    assert end.returncode == 1 and 'images' not in end.stdout
    assert end.stderr.splitlines()[-1].startswith('error: All images of ')
    assert 'Traceback' not in end.stderr and not (tmp_path / 'work').exists()
