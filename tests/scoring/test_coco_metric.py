import copy
import hashlib
import importlib
import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric, FasterCocoMetric
from mmengine.config import Config
from pycocotools.cocoeval import COCOeval
from tiny import CLASSES

from mmcr.data import write_shapes
from mmcr.engine import launch
from mmcr.errors import UserError
from mmcr.scoring import UnroundedCocoMetric
from mmcr.scoring.coco_ids import EVALUATORS, accept_any_ids
from mmcr.scoring.coco_metric import BACKENDS

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

META = dict(classes=CLASSES)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('coco'), 12, (96, 96), seed=1)


def detections(path, seed, masks=False):
    """Shaken copies of the annotated objects and some inventions, per image."""
    content = json.loads(path.read_text())
    rng = np.random.default_rng(seed)
    samples = []
    for image in content['images']:
        own = [a for a in content['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in own], float)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([a['category_id'] - 1 for a in own])
        boxes = np.concatenate(
            [
                boxes + rng.normal(0, 3, boxes.shape),
                np.sort(rng.uniform(0, 96, (4, 2, 2)), axis=1).reshape(4, 4),
            ]
        )
        labels = np.concatenate([labels, rng.integers(0, len(CLASSES), 4)])
        found = dict(
            bboxes=torch.tensor(boxes),
            labels=torch.tensor(labels),
            scores=torch.tensor(rng.uniform(size=len(boxes))),
        )
        if masks:
            found['masks'] = torch.tensor(np.array([_filled(box) for box in boxes]))
        samples.append(
            dict(img_id=image['id'], ori_shape=(96, 96), pred_instances=found)
        )
    return samples


def _filled(box):
    mask = np.zeros((96, 96), bool)
    x1, y1, x2, y2 = np.clip(np.round(box), 0, 96).astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def values(metric, samples):
    metric.dataset_meta = META
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('kinds', [['bbox'], ['bbox', 'segm']], ids='-'.join)
def test_rounded_it_is_mmdets_metric(coco, seed, kinds):
    samples = detections(coco, seed, masks='segm' in kinds)
    options = dict(ann_file=str(coco), metric=kinds)
    ours = values(UnroundedCocoMetric(**options), samples)
    theirs = values(CocoMetric(**options), samples)
    assert {k: float(f'{v:.3f}') for k, v in ours.items()} == theirs
    assert 0.05 < ours['coco/bbox_mAP'] != theirs['coco/bbox_mAP']
    if 'segm' in kinds:
        assert ours['coco/segm_mAP'] not in (0, ours['coco/bbox_mAP'])


def test_values_are_plain_and_keep_their_precision(coco):
    ours = values(UnroundedCocoMetric(ann_file=str(coco)), detections(coco, 0))
    assert list(ours) == [
        f'coco/bbox_mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')
    ]
    assert all(type(value) is float for value in ours.values())
    assert json.loads(json.dumps(ours)) == ours


def test_only_the_images_that_were_processed_count_in_any_order(coco, tmp_path):
    samples = detections(coco, 0)[3:8]
    content = json.loads(coco.read_text())
    ids = {sample['img_id'] for sample in samples}
    content['images'] = [i for i in content['images'] if i['id'] in ids]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
    part = tmp_path / 'part.json'
    part.write_text(json.dumps(content))

    def of(ann_file, found):
        return values(UnroundedCocoMetric(ann_file=str(ann_file)), found)

    assert of(coco, samples) == of(part, samples) != of(coco, detections(coco, 0))
    assert of(coco, samples[::-1]) == of(coco, samples)


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_detections_are_worth_nothing(coco, backend):
    samples = detections(coco, 0)
    for sample in samples:
        sample['pred_instances'] = {
            key: value[:0] for key, value in sample['pred_instances'].items()
        }
    metric = UnroundedCocoMetric(ann_file=str(coco), backend=backend)
    found = values(metric, samples)
    assert found['coco/bbox_mAP'] == found['coco/bbox_mAP_50'] == 0


def edited(coco, folder, edit):
    """With what `edit` says of each annotation; without those that it has None for."""
    content = json.loads(coco.read_text())
    content['annotations'] = [
        {**entry, **changed}
        for number, entry in enumerate(content['annotations'])
        if (changed := edit(number, entry)) is not None
    ]
    path = folder / 'edited.json'
    path.write_text(json.dumps(content))
    return path


EDITS = dict(
    plain=lambda number, entry: {},
    crowded=lambda number, entry: dict(iscrowd=int(number % 5 == 0)),
    ignored=lambda number, entry: dict(ignore=int(number % 4 == 0)),
    from_zero=lambda number, entry: dict(id=number),
    of_one_class=lambda number, entry: dict(category_id=1),
    of_some_images=lambda number, entry: dict(image_id=min(entry['image_id'], 5)),
)


@pytest.mark.parametrize('edit', EDITS)
@pytest.mark.parametrize('options', [{}, dict(proposal_nums=(2, 5, 9))], ids=str)
def test_both_backends_give_the_same_values(coco, tmp_path, edit, options):
    path = edited(coco, tmp_path, EDITS[edit])
    options = dict(ann_file=str(path), metric=['bbox', 'segm'], **options)
    for samples in (detections(coco, 4, True), tied(detections(coco, 5, True))):
        found = [
            values(UnroundedCocoMetric(**options, backend=name), samples)
            for name in BACKENDS
        ]
        assert found[0] == pytest.approx(found[1], rel=0, abs=1e-12)
        assert min(found[0]['coco/bbox_mAP'], found[0]['coco/segm_mAP']) > 0.001


def tied(samples):
    """Of few different scores, and the first two images without detections."""
    for sample in samples:
        found = sample['pred_instances']
        found['scores'] = (found['scores'] * 3).round() / 3
    for sample in samples[:2]:
        found = sample['pred_instances']
        sample['pred_instances'] = {key: value[:0] for key, value in found.items()}
    return samples


@pytest.mark.parametrize('kind', ('bbox', 'segm'))
@pytest.mark.parametrize('backend', BACKENDS)
def test_the_table_is_summarized_as_pycocotools_does(coco, kind, backend):
    samples = detections(coco, 6, True)
    metric = UnroundedCocoMetric(ann_file=str(coco), metric=kind, backend=backend)
    ours = values(metric, samples)
    api = metric._coco_api
    predictions = [prediction for _, prediction in processed(metric, samples)]
    theirs = COCOeval(
        api, api.loadRes(list(metric._detections(kind, predictions))), kind
    )
    theirs.params.maxDets = [100, 300, 1000]
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    assert list(ours.values()) == pytest.approx(theirs.stats[:6], rel=0, abs=1e-12)


def processed(metric, samples):
    metric.results = []
    metric.process({}, samples)
    return metric.results


@pytest.mark.parametrize('backend', BACKENDS)
def test_many_detections_count_as_in_pycocotools(coco, backend):
    samples = detections(coco, 0)
    for sample in samples:  # hits come after a hundred misses of every class
        found = sample['pred_instances']
        found['scores'] *= 0.5
        misses = dict(
            bboxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double().repeat(600, 1),
            labels=torch.arange(len(CLASSES)).repeat(100),
            scores=torch.linspace(0.6, 1, 600).double(),
        )
        sample['pred_instances'] = {
            key: torch.cat([found[key], misses[key]]) for key in found
        }
    options = dict(ann_file=str(coco), backend=backend)
    ours = values(UnroundedCocoMetric(**options), samples)
    assert ours['coco/bbox_mAP'] == 0 < ours['coco/bbox_mAP_50']
    more = values(UnroundedCocoMetric(**options, proposal_nums=(700,)), samples)
    assert more['coco/bbox_mAP'] > 0


def test_the_results_stay_as_they_are_and_hold_no_other_boxes_in_memory(coco):
    metric = UnroundedCocoMetric(ann_file=str(coco), metric=['bbox', 'segm'])
    metric.dataset_meta = META
    results = processed(metric, detections(coco, 0, masks=True))
    for _, prediction in results:
        arrays = [v for v in prediction.values() if isinstance(v, np.ndarray)]
        assert len(arrays) == 3 and all(array.base is None for array in arrays)
    before = copy.deepcopy(results)
    first = metric.compute_metrics(results)
    np.testing.assert_equal(results, before)
    assert metric.compute_metrics(results) == first


def test_the_quicker_backend_is_the_default_where_it_is_installed(coco, monkeypatch):
    assert UnroundedCocoMetric(ann_file=str(coco)).backend == 'faster_coco_eval'
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    assert UnroundedCocoMetric(ann_file=str(coco)).backend == 'pycocotools'
    with pytest.raises(UserError, match='pip install faster-coco-eval'):
        UnroundedCocoMetric(ann_file=str(coco), backend='faster_coco_eval')


def hashed(key) -> int:
    return int(hashlib.md5(str(key).encode()).hexdigest()[:16], 16)


IDS = dict(
    from_0=lambda n: n - 1,
    negative=lambda n: -n,
    text=lambda n: f'a {n}',
    mixed=lambda n: f'{n}' if n % 2 else n,
    floats=lambda n: n + 0.5,
    hashed=hashed,
    beyond_2_53=lambda n: 2**53 + n,
    beyond_2_64=lambda n: 2**64 + n,
    around_2_63=lambda n: 2**63 + (n if n % 2 else -n),
)


@pytest.fixture
def any_ids(monkeypatch):
    """mmdet's metrics as the tools make them, for one test."""
    for module, names in EVALUATORS.items():
        module = importlib.import_module(f'mmdet.evaluation.metrics.{module}')
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    accept_any_ids()


def renamed(coco, folder, name, sections):
    """With other ids, in those sections."""
    content = json.loads(coco.read_text())
    change = {
        section: IDS[name] if section in sections else lambda n: n
        for section in ('images', 'categories', 'annotations')
    }
    for section, new in change.items():
        for entry in content[section]:
            entry['id'] = new(entry['id'])
    for entry in content['annotations']:
        entry['image_id'] = change['images'](entry['image_id'])
        entry['category_id'] = change['categories'](entry['category_id'])
        del entry['iscrowd']
    path = folder / f'{name}.json'
    path.write_text(json.dumps(content))
    return path, change['images']


METRICS = [partial(UnroundedCocoMetric, backend=name) for name in BACKENDS]
METRICS += [CocoMetric, FasterCocoMetric]


@pytest.mark.usefixtures('any_ids')
def test_the_tools_evaluate_so_by_mmdets_metrics(coco, tmp_path, monkeypatch):
    theirs = importlib.import_module('mmdet.evaluation.metrics.coco_metric')
    monkeypatch.setattr(theirs, 'COCOeval', COCOeval)
    path, _ = renamed(coco, tmp_path, 'from_0', ('annotations',))

    def ap():
        samples = detections(coco, 4)
        return values(CocoMetric(ann_file=str(path)), samples)['coco/bbox_mAP']

    with pytest.raises(KeyError, match='iscrowd'):
        ap()
    runner = SimpleNamespace(model=torch.nn.Identity())
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: runner)
    launch.build_runner(Config(dict(work_dir=str(tmp_path), launcher='none')))
    assert ap() > 0.05


@pytest.mark.usefixtures('any_ids')
@pytest.mark.parametrize('kind', METRICS, ids=range(len(METRICS)))
@pytest.mark.parametrize('name', IDS)
def test_ap_is_right_whatever_the_ids(coco, tmp_path, name, kind):
    samples = detections(coco, 4, masks=True)
    options = dict(metric=['bbox', 'segm'])
    plain = values(kind(ann_file=str(coco), **options), samples)
    assert 0.05 < plain['coco/bbox_mAP'] != plain['coco/segm_mAP'] > 0.05
    sections = ('images', 'categories', 'annotations')
    for changed in (sections, *((section,) for section in sections)):
        path, new = renamed(coco, tmp_path, name, changed)
        same = [dict(sample, img_id=new(sample['img_id'])) for sample in samples]
        assert values(kind(ann_file=str(path), **options), same) == plain
    if kind is CocoMetric and name == 'mixed':  # by many processes
        kind = partial(kind, use_mp_eval=True)
        assert values(kind(ann_file=str(path), **options), same) == plain


@pytest.mark.usefixtures('any_ids')
def test_mmdet_writes_and_names_what_the_file_does(coco, tmp_path):
    path, new = renamed(coco, tmp_path, 'text', ('images', 'categories'))
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    samples = [dict(s, img_id=new(s['img_id'])) for s in detections(coco, 4)]
    for sample in samples:  # the classes are those of the file, in its order
        found = sample['pred_instances']
        found['labels'] = len(CLASSES) - 1 - found['labels']
    options = dict(classwise=True, outfile_prefix=str(tmp_path / 'out'))
    theirs = values(CocoMetric(ann_file=str(coco), **options), detections(coco, 4))
    metric = CocoMetric(ann_file=str(path), **options)
    assert values(metric, samples) == theirs
    written = json.loads((tmp_path / 'out.bbox.json').read_text())[0]
    assert written['image_id'] == 'a 1' and written['category_id'].startswith('a ')


@pytest.mark.usefixtures('any_ids')
@pytest.mark.parametrize('kind', METRICS, ids=range(len(METRICS)))
@pytest.mark.parametrize('value', [None, False, 0, ...], ids=repr)
def test_iscrowd_is_optional_and_boxes_of_nan_do_not_count(coco, tmp_path, value, kind):
    def edit(number, entry):
        return {} if value is ... else dict(iscrowd=value)

    samples = detections(coco, 4)
    plain = values(kind(ann_file=str(coco)), samples)
    path = edited(coco, tmp_path, edit)
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        if value is ...:
            del entry['iscrowd']
    lost = dict(content['annotations'][0], id=999, bbox=[float('nan')] * 4)
    content['annotations'].append(lost)
    path.write_text(json.dumps(content))
    assert values(kind(ann_file=str(path)), samples) == plain


def test_images_that_the_file_does_not_have_are_refused(coco):
    samples = detections(coco, 4)
    samples[1]['img_id'] = '2'
    with pytest.raises(UserError, match="1 are not, for example the one of id '2'"):
        values(UnroundedCocoMetric(ann_file=str(coco)), samples)


def test_an_unknown_backend_is_refused(coco):
    with pytest.raises(UserError, match="one of faster_coco_eval, pycocotools.*'x'"):
        UnroundedCocoMetric(ann_file=str(coco), backend='x')


@pytest.mark.parametrize('backend', BACKENDS)
def test_scores_that_are_no_numbers_are_refused(coco, backend):
    samples = detections(coco, 0)
    samples[3]['pred_instances']['scores'][2] = float('nan')
    with pytest.raises(UserError, match='image 4 has NaN'):
        values(UnroundedCocoMetric(ann_file=str(coco), backend=backend), samples)


@pytest.mark.parametrize(
    'edit',
    [
        lambda number, entry: None,
        lambda number, entry: dict(iscrowd=1),
        lambda number, entry: {} if entry['image_id'] > 2 else None,
    ],
    ids=('none', 'crowd', 'elsewhere'),
)
def test_images_without_objects_are_refused(coco, tmp_path, edit):
    path = edited(coco, tmp_path, edit)
    with pytest.raises(UserError, match='annotated objects.*2 images'):
        values(UnroundedCocoMetric(ann_file=str(path)), detections(coco, 0)[:2])


@pytest.mark.parametrize(
    'options', [dict(metric=['bbox', 'proposal_fast']), dict(ann_file=None)]
)
def test_other_metrics_are_refused(coco, options):
    with pytest.raises(UserError, match='ann_file and the metric bbox or segm'):
        UnroundedCocoMetric(**{'ann_file': str(coco), **options})
