"""A reallocation over several scales of images."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from config_files import read, write_workplace
from in_process import in_this_process
from tiny import IOU_THRESHOLDS

from mmcr.cost.budget import budget_space
from mmcr.cost.complexity import measure
from mmcr.cost.units import count
from mmcr.data.scales import scaled_shape
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.models.detector import supernet_of
from mmcr.space.table import CostTable
from mmcr.workflow import reallocation, settings
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import StepRunner
from mmcr.workflow.variants.grown import wanted
from mmcr.workflow.variants.scaled import ScaledReallocation

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SMALL = '02_stage_search_x0.67'
CHOICES = dict(stage1=(1, 2, 7, 8), stage2=(2, 8), stage3=(2, 3, 8), stage4=(2, 3, 4))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Makes one of the demo's detector, on a few images."""
    write_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)

    def make(**given):
        cfg = read('demo/shapes.py')
        cfg.pop('reallocation')
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 4
        loose = dict(test_evaluator=dict(iou_thrs=IOU_THRESHOLDS))
        given = dict(dict(scales=[0.67], archval=8, width=1.0, supernet=loose), **given)
        # paths that differ from each other before any training
        own = dict(stage_choices=CHOICES, zero_init_residual=False)
        given.setdefault('backbone', own)
        return ScaledReallocation(cfg, 'mine', 'work', settings_of(given))

    return make


@pytest.mark.parametrize(
    'given, words',
    [
        (dict(scales=[]), 'one of them not 1'),
        (dict(scales=[1.0]), 'one of them not 1'),
        (dict(scales=[0, 2]), 'above 0'),
        (dict(scales='2'), 'above 0'),
        (dict(scales=[0.5], budget='params'), "budget='params'"),
        (dict(scales=[0.5], budget='blocks'), "budget='blocks'"),
        (dict(scales=[0.5], method='detnas'), "method='detnas'"),
        (dict(scales=[0.5], front=[0.5, 1]), 'front='),
    ],
)
def test_settings_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        settings_of(given)


def test_a_supernet_from_a_detector_is_refused():
    cfg = read('demo/shapes.py')
    given = settings_of(dict(scales=[0.5], checkpoint='mine.pth'))
    with pytest.raises(UserError, match='leave scales out'):
        wanted(cfg, given)


def test_every_scale_is_searched_at_the_detectors_own_cost(work):
    made = work()
    made.write()
    assert [step.name for step in made.steps[1:]] == ['02_stage_search', SMALL]
    own, small = (
        read_config(f'work/{name}/config.py') for name in ('02_stage_search', SMALL)
    )
    assert small.model == own.model and small.train_dataloader == own.train_dataloader
    sizes = [
        next(s.scale for s in c.test_dataloader.dataset.pipeline if 'scale' in s)
        for c in (own, small)
    ]
    assert sizes == [(192, 192), (128, 128)]
    cost = own.test_cfg.budget.value
    # what RoIs cost is counted for as many as there may be
    assert cost == pytest.approx(measure(made.plain, (192, 192)).macs, rel=0.01)
    for cfg, shape in ((own, (192, 192)), (small, (128, 128))):
        assert cfg.test_cfg.budget.value == cost
        assert tuple(cfg.test_cfg.budget.shape) == shape
    assert made.searches[SMALL][0] > 0
    stage = read_config('work/01_stage_supernet/config.py')
    pipeline = stage.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline].count('RandomChoice') == 1
    assert stage.model.backbone.stage_choices.stage2 == CHOICES['stage2']
    assert 'Dilations are not searched where scales are.' in made.notes


def test_a_supernet_of_half_the_width(work):
    deep = {f'stage{i}': tuple(range(1, 9)) for i in (1, 2, 3, 4)}
    made = work(width=0.5, backbone=dict(stage_choices=deep))
    made.write()
    assert made.searches[SMALL][0] == 56
    full = work(backbone=dict(stage_choices=deep))
    full.work_dir = full.work_dir.with_name('full')
    full.write()
    # what counts are the networks to be found, which are as wide either way
    assert made.total == full.total and full.searches[SMALL][0] == 56


def test_a_scale_that_no_architecture_can_pay_is_refused(work):
    narrow = dict(stage_choices=dict(stage1=(1, 2), stage2=(2,), stage3=(2,)))
    with pytest.raises(UserError, match='At 0.3 times the image scale there is none'):
        work(scales=[0.3], backbone=narrow).write()


def test_every_scale_has_a_latency_table_of_its_own(work):
    made = work()
    made.write()
    net, final = supernet_of(read_config('work/02_stage_search/config.py'))
    tables = {}
    for side, name in ((192, 'ms.json'), (128, 'ms_x0.67.json')):
        macs = count(net, final, 'macs', (side, side))
        rows = {
            name: {value: cost / 1e6 for value, cost in row.items()}
            for name, row in macs.costs.items()
        }
        about = dict(detector='FasterRCNN', macs=macs.to_json())
        tables[name] = CostTable('latency', 'ms', rows, side, (side, side), about)
    timed = dict(budget='latency', latency_table='ms.json')
    tables['ms.json'].write('ms.json')
    with pytest.raises(UserError, match='ms_x0.67.json.*--shape 128 128 --out'):
        work(**timed).write()
    others = dict(tables['ms_x0.67.json'].about, detector='RetinaNet')
    for wrong in (dict(about=macs.about), dict(about=others), dict(shape=(96, 96))):
        replace(tables['ms_x0.67.json'], **wrong).write('ms_x0.67.json')
        with pytest.raises(UserError, match='of the whole FasterRCNN at 128 x 128'):
            work(**timed).write()
    tables['ms_x0.67.json'].write('ms_x0.67.json')
    made = work(**timed)
    made.work_dir = made.work_dir.with_name('timed')
    made.write()
    own, small = (
        read_config(f'timed/{name}/config.py').test_cfg.budget
        for name in ('02_stage_search', SMALL)
    )
    assert [Path(each.table).name for each in (own, small)] == list(tables)
    assert own.limit == small.limit == tables['ms.json'].total(made.own)
    space = budget_space(net, final, small)
    assert made.searches[SMALL][0] > 0
    assert space.size == sum(
        tables['ms_x0.67.json'].total(arch) <= own.limit for arch in net.space
    )
    assert any('take at most as long' in note for note in made.notes)


@pytest.mark.slow
def test_the_verdict_is_on_a_network_of_another_scale(work, monkeypatch):
    """With one seed that judges, all candidates in the run-off."""
    monkeypatch.setattr(settings, 'LEAST', 2)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    monkeypatch.setattr(reallocation, 'estimate', lambda path: Estimate(1, 2, 1, 1, 1))
    made = work(trainings=2, candidates=1)
    made.write()
    made.plan()
    # whatever the scores are after a step: what is judged has the other scale
    monkeypatch.setattr(
        'mmcr.workflow.contests.finals.best_candidates',
        lambda searches, *args: _best_of(searches[-1:], *args),
    )
    text = made.run(0)
    (candidate,) = json.loads(Path('work/run_off.json').read_text())['candidates']
    assert candidate['name'] == 'stage_x0.67_1' and candidate['scale'] == 0.67
    cfg = read_config('work/06_judging/stage_x0.67_1_seed0/config.py')
    sizes = [
        next(s.scale for s in cfg[f'{p}_dataloader'].dataset.pipeline if 'scale' in s)
        for p in ('train', 'test')
    ]
    assert sizes == [(128, 128)] * 2
    rows = json.loads(Path('work/result/comparison.json').read_text())['networks']
    baseline, found = rows
    assert found['macs'] == measure(cfg, scaled_shape((192, 192), 0.67, cfg)).macs
    assert found['macs'] == pytest.approx(baseline['macs'], rel=0.02)
    assert 'Found takes images of 128 x 128, 0.67 times yours of 192 x 192' in text


def _best_of(searches, *args):
    from mmcr.workflow.contests.candidates import best_candidates

    return best_candidates(searches, *args)
