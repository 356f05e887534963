"""A reallocation that starts from a trained detector."""

import copy
import json
from pathlib import Path
from random import Random

import nets
import pytest
import torch
from config_files import CONFIGS, read, write_workplace
from in_process import in_this_process
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from nets import FAMILIES, equal, images, in_mode, randomised, snapshot
from tiny import detector_cfg, train_cfg
from torch import nn

from mmcr.cost.budget import ParamsBudget
from mmcr.engine.export import read_arch
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.models import reallocate_detector
from mmcr.models.weights.checkpoint import CheckpointError, read_weights
from mmcr.space import Arch, Budget
from mmcr.workflow import reallocation, recipe, settings
from mmcr.workflow.baseline import build, understand
from mmcr.workflow.continuation import (
    Continuation,
    continued,
    one_after_the_other,
    started,
    unlike,
)
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.recipe import Options
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import StepRunner
from mmcr.workflow.variants.grown import wanted
from mmcr.workflow.variants.warm import (
    WarmReallocation,
    spanned,
    warm_supernet,
    without_random_blocks,
)

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

ROOT = CONFIGS.parent
R18 = dict(name='R18', config='r18.py', ap=31.2)
FROZEN = dict(
    frozen_stages=1, norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False)
)


def mmdets(family, **more):
    """A detector as its user has it, with mmdet's own backbone."""
    cfg = dict(FAMILIES[family], **more)
    channels = list(build(cfg).out_channels)
    model = detector_cfg(nets.mmdets(cfg))
    model.neck.in_channels = channels
    return model


def config(model):
    cfg = train_cfg('.', '.', {})
    cfg.pop('custom_hooks')
    cfg.model = model
    return cfg


def trained(model, path):
    """A detector of which no norm is neutral, and its checkpoint."""
    torch.manual_seed(0)
    detector = randomised(MODELS.build(copy.deepcopy(model)))
    torch.save(dict(state_dict=detector.state_dict()), path)
    return in_mode(detector, False)


@torch.no_grad()
def said(detector):
    """All that it makes of two images."""
    x = images()
    samples = [
        DetDataSample(
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1, 1))
        )
        for _ in x
    ]
    found = [each.pred_instances for each in detector(x, samples, mode='predict')]
    boxes = [value for each in found for value in (each.bboxes, each.scores)]
    assert sum(map(len, boxes)) > 50
    return [*detector.extract_feat(x), *boxes]


def deeper_paths(space, own):
    """The baseline's path, the deepest, and two in between."""
    by_name = dict(zip((choice.name for choice in space.choices), own))
    more = {
        c.name: [v for v in c.values if v >= by_name[c.name]] for c in space.choices
    }
    paths = [
        Arch({name: values[i % len(values)] for name, values in more.items()})
        for i in (1, 2)
    ]
    deepest = Arch({name: max(values) for name, values in more.items()})
    return [Arch(by_name), *paths, deepest]


@pytest.mark.parametrize(
    'family, more',
    [
        *((family, {}) for family in FAMILIES),
        ('r50', FROZEN),
        ('r18', dict(deep_stem=True, avg_down=True)),
    ],
)
def test_the_supernet_starts_as_the_detector(tmp_path, family, more):
    model = mmdets(family, **more)
    path = str(tmp_path / 'mine.pth')
    detector = trained(model, path)
    baseline = understand(config(model))
    assert unlike(baseline, path) == ([], [])
    options = without_random_blocks(baseline, Options(width=1.0))
    draft, _ = recipe.stage_draft(baseline, options)
    space = draft.space.under(Budget(0, 30))
    cfg = warm_supernet(baseline, None, Options(), path, space)
    supernet = MODELS.build(cfg.model)
    supernet.init_weights()
    net = supernet.backbone
    expected = said(detector)
    paths = deeper_paths(net.space, baseline.stage_blocks)
    assert len({sum(arch.values()) for arch in paths}) >= 3
    for arch in paths:
        in_mode(supernet, False)
        net.set_arch(arch)
        assert equal(said(supernet), expected)
    # and all of it learns, new blocks too
    supernet.train()
    assert all(p.requires_grad for p in supernet.parameters())
    assert all(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    shorter = {c.name: min(c.values) for c in net.space.choices}
    net.set_arch(Arch(shorter))
    assert not equal(said(in_mode(supernet, False) or supernet), expected)


def test_blocks_that_cannot_start_as_the_identity_are_left_out():
    baseline = understand(config(mmdets('cspnext')))
    kept = without_random_blocks(baseline, Options(width=1.0))
    assert kept.backbone == dict(stage_choices=dict(stage4=(1,)))
    asked = Options(backbone=dict(stage_choices=dict(stage4=(1, 2))))
    assert without_random_blocks(baseline, asked) is asked
    resnet = understand(config(mmdets('r18')))
    assert without_random_blocks(resnet, Options()) == Options()


def test_heads_for_other_classes_stay_at_random(tmp_path):
    model = mmdets('r18')
    path = str(tmp_path / 'mine.pth')
    theirs = snapshot(trained(model, path))
    other = copy.deepcopy(model)
    other.roi_head.bbox_head.num_classes += 1
    left, depths = unlike(understand(config(other)), path)
    assert not depths
    assert {name.rsplit('.', 2)[1] for name in left} == {'fc_cls', 'fc_reg'}

    cfg = recipe.network(understand(config(other)), {}, Options()).model
    detector = MODELS.build(cfg)
    before = snapshot(detector)
    report = reallocate_detector(theirs, detector)
    after = snapshot(detector)
    assert set(report.kept) == set(left) and not report.ignored
    assert all(
        torch.equal(after[n], (before if n in left else theirs)[n]) for n in after
    )


@pytest.mark.parametrize(
    'damage, words',
    [
        (
            lambda w: {n: w[n] for n in w if n.startswith('backbone.')},
            'of such a detector',
        ),
        (lambda w: {n: w[n] for n in w if 'layer4.1' not in n}, None),
        (
            lambda w: {n: w[n] for n in w if not n.startswith('backbone.')},
            'first block',
        ),
        (lambda w: {n: w[n] for n in w if 'layer4' not in n}, 'same kind of blocks'),
    ],
)
def test_what_a_checkpoint_must_hold(tmp_path, damage, words):
    model = mmdets('r18')
    path = str(tmp_path / 'mine.pth')
    weights = damage(trained(model, path).state_dict())
    torch.save(dict(state_dict=weights), path)
    if words is None:  # of fewer blocks
        names, (depth,) = unlike(understand(config(model)), path)
        assert not names and depth == ('layer4', 1, 2)
        return
    with pytest.raises(CheckpointError, match=words):
        unlike(understand(config(model)), path)


def test_the_schedule_goes_on_at_a_lower_rate():
    cfg = read('demo/shapes.py')
    longer = continued(cfg, 0.5, 0.25)
    assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == 8
    assert longer.train_cfg.max_epochs == longer.train_cfg.val_interval == 4
    assert continued(cfg, 1e-3, 1).train_cfg.max_epochs == 1
    assert continued(cfg, 2, 1).param_scheduler[0].end == 50  # no longer warm-up
    both = one_after_the_other(cfg, 1 / 2, 1 / 12)  # 4 and 1, not 4.67
    assert continued(cfg, both, 1).train_cfg.max_epochs == 5

    longer.param_scheduler[0].end = 2
    weights = nn.Linear(1, 1)
    optimizer = build_optim_wrapper(weights, longer.optim_wrapper)
    schedulers = []
    for each in longer.param_scheduler:
        kind, options = PARAM_SCHEDULERS.get(each.pop('type')), dict(each)
        build = kind
        if options.pop('convert_to_iter_based', False):
            build, options['epoch_length'] = kind.build_iter_from_epoch, 5
        schedulers.append(build(optimizer, **options))
    rates = []
    for _ in range(20):
        rates.append(optimizer.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    assert max(rates) == pytest.approx(0.25 * 0.02, rel=0.05)
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[0] < rates[1]
    assert rates[-1] < 0.02 * max(rates)

    cfg.optim_wrapper.optimizer.pop('lr')
    with pytest.raises(UserError, match='names none as optim_wrapper.optimizer.lr'):
        continued(cfg, 1, 0.5)

    iters = read('demo/shapes.py')
    iters.train_cfg = dict(type='IterBasedTrainLoop', max_iters=900, val_interval=300)
    iters.param_scheduler = iters.param_scheduler[1]
    tuned = continued(iters, 1 / 12, 0.5)
    assert tuned.train_cfg.max_iters == tuned.train_cfg.val_interval == 75
    assert [each.type for each in tuned.param_scheduler] == ['CosineAnnealingLR']
    iters.train_cfg = dict(type='IterBasedTrainLoop', max_iters=90_000)
    assert continued(iters, 1, 0.5).train_cfg.val_interval == 1000  # mmengine's own


def test_as_many_last_epochs_have_the_other_pipeline():
    cfg = read('demo/shapes.py')
    cfg.train_cfg.max_epochs = 300
    cfg.custom_hooks = [dict(type='mmdet.PipelineSwitchHook', switch_epoch=280)]
    for length, switch in ((1, 280), (1 + 1 / 12, 305), (1 / 12, 5), (1 / 50, 0)):
        (hook,) = continued(cfg, length, 0.5).custom_hooks
        assert hook.switch_epoch == switch
    assert cfg.custom_hooks[0].switch_epoch == 280


def test_an_average_of_weights_begins_as_much_earlier():
    cfg = read('demo/shapes.py')
    cfg.train_cfg.max_epochs = 24
    cfg.custom_hooks = [dict(type='EMAHook', begin_epoch=12)]
    (hook,) = continued(cfg, 1 / 12, 0.5).custom_hooks
    assert hook.begin_epoch == 1


def test_detectors_that_draw_weights_anew_are_refused():
    detr = Config.fromfile(
        Config._get_cfg_path('mmdet::detr/detr_r50_8xb2-150e_coco.py', '')[0]
    )
    with pytest.raises(UserError, match='DETR draws a part .* --from none'):
        unlike(understand(detr), 'none.pth')


@pytest.mark.parametrize(
    'given, words',
    [
        (dict(checkpoint='a.pth', width=0.5), 'as wide as that'),
        (dict(checkpoint=3), 'checkpoint must be'),
        (dict(front=[1]), 'front must be two costs'),
        (dict(front=[1, 0]), 'front must be two costs'),
        (dict(front=[1.5, 2]), 'cost below that of your backbone'),
        (dict(front=[0.5, 0.9]), 'and one of 1 or more'),
        (dict(front=[0.5, 2], fast=True), 'Leave --fast out'),
        (dict(front=[0.5, 2], trained=[dict(name='R18')]), 'trained must be a list'),
        (
            dict(front=[0.5, 2], trained=[dict(R18, config='')]),
            'trained must be a list',
        ),
        (dict(trained=[R18]), 'marked on a front'),
        (dict(front=[0.5, 2], trained=[R18], budget='latency'), "budget='latency'"),
    ],
)
def test_settings_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        settings_of(given)


@pytest.mark.parametrize(
    'warm, words',
    [
        (dict(rate=0), 'rate of warm'),
        (dict(epochs=3), 'rate, length, tune, sampler, distillation'),
    ],
)
def test_warm_options_are_refused(warm, words):
    with pytest.raises(UserError, match=words):
        Continuation.of(Options(warm=warm))


def test_where_a_reallocation_starts_from(tmp_path):
    cfg = read('demo/shapes.py')
    assert wanted(cfg, settings_of({})) is None
    with pytest.raises(UserError, match='Name its checkpoint by --from'):
        wanted(cfg, settings_of({}, front=[0.5, 1]))
    start = settings_of({}, checkpoint='a.pth')
    assert wanted(cfg, start).endswith('/a.pth')
    for kind in ('mmcr.ReallocatedInit', PretrainedInit, 'Pretrained'):
        cfg.model.init_cfg = dict(type=kind, checkpoint='https://x/b.pth')
        assert wanted(cfg, settings_of({})) == 'https://x/b.pth'
        assert not understand(cfg).cfg.model.get('init_cfg')
    cfg.load_from = '/c.pth'
    assert wanted(cfg, settings_of({})) == '/c.pth'
    assert wanted(cfg, start).endswith('/a.pth')
    assert wanted(cfg, settings_of({}, checkpoint='none')) is None
    assert wanted(cfg, settings_of({}, method='detnas')) is None
    baseline = understand(cfg)
    assert baseline.checkpoint == '/c.pth'
    assert not baseline.cfg.model.get('init_cfg') and not baseline.cfg.load_from


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Makes a warm reallocation of the demo's detector, on a few images."""
    write_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(
        dict(state_dict=MODELS.build(read('demo/shapes.py').model).state_dict()),
        'mine.pth',
    )

    def make(change=lambda cfg: None, **given):
        cfg = read('demo/shapes.py')
        cfg.pop('reallocation')
        change(cfg)
        said = settings_of(dict(archval=8, **given))
        checkpoint = wanted(cfg, said)
        return WarmReallocation(cfg, 'mine', 'work', said, checkpoint)

    return make


def test_the_steps_of_a_warm_reallocation(work, tmp_path):
    sampler = dict(type='mmcr.SandwichSampler', paths=3)
    warm = dict(sampler=sampler, distillation=2.0)
    changes = dict(optim_wrapper=dict(accumulative_counts=3))
    made = work(checkpoint='mine.pth', warm=warm, supernet=changes)
    made.write()
    assert [step.name for step in made.steps] == [
        '01_stage_supernet',
        '02_stage_search',
    ]
    stage = read_config('work/01_stage_supernet/config.py')
    assert stage.model.init_cfg == dict(
        type='mmcr.ReallocatedInit', checkpoint=str(tmp_path / 'mine.pth')
    )
    assert stage.model.backbone.base_channels == 16
    assert stage.optim_wrapper.optimizer.lr == 0.01
    assert stage.optim_wrapper.accumulative_counts == 3
    assert stage.custom_hooks[0] == dict(
        type='mmcr.ArchSamplingHook', seed=0, sampler=sampler
    )
    teacher = dict(type='mmcr.InPlaceDistillationHook', weight=2.0)
    assert stage.custom_hooks[-1] == teacher
    assert read_config('work/02_stage_search/config.py').model == stage.model
    # what is for a supernet from nothing would make its epochs unequal
    cold = dict(train_cfg=dict(max_epochs=24), param_scheduler=[])
    told = work(checkpoint='mine.pth', supernet=dict(cold, **changes))
    assert any('train_cfg and param_scheduler of supernet' in n for n in told.notes)
    told.write()
    stage = read_config('work/01_stage_supernet/config.py')
    own = read('demo/shapes.py').train_cfg.max_epochs
    assert stage.train_cfg.max_epochs == own and stage.param_scheduler
    assert stage.optim_wrapper.accumulative_counts == 3
    # another detector under the same name is another start
    runner = StepRunner('work', made.steps, None)
    before = runner.conditions(made.steps[0])
    assert runner.conditions(made.steps[0]) == before
    with open('mine.pth', 'ab') as file:
        file.write(b'trained anew')
    assert runner.conditions(made.steps[0]) != before


def deeper(cfg):
    cfg.model.backbone.depth = 34


def other_classes(cfg):
    cfg.model.roi_head.bbox_head.num_classes = 3


@pytest.mark.parametrize(
    'change, refusal, note',
    [
        (
            deeper,
            'layer1 2 there, 3 here.*layer3 2 there, 6',
            'new blocks as the identity',
        ),
        (
            other_classes,
            '4 weights of its neck and heads.*fc_cls',
            '4 weights of neck and heads',
        ),
    ],
)
def test_a_checkpoint_of_another_detector(work, change, refusal, note):
    """By name it is refused; what a config starts from starts all networks alike."""
    with pytest.raises(UserError, match=refusal):
        work(change, checkpoint='mine.pth')

    def start(cfg):
        change(cfg)
        cfg.load_from = 'mine.pth'

    made = work(start)
    assert not made.is_whole
    assert any(note in each for each in made.notes)


def test_a_checkpoint_in_any_form_starts_the_baseline(work):
    """Also what mmengine's Pretrained reads as a checkpoint without weights."""
    made = work(checkpoint='mine.pth')
    weights = read_weights('mine.pth')
    torch.save(dict(model=weights), 'other.pth')
    detector = MODELS.build(started(made.baseline.cfg, 'other.pth').model)
    detector.init_weights()
    own = detector.state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items())


def test_the_configs_own_start_is_read_before_anything_is_trained(work):
    def start(cfg):
        cfg.load_from = 'gone.pth'

    made = work(start, checkpoint='mine.pth')
    made.write()
    with pytest.raises(UserError, match='gone.pth.*load_from'):
        made.finals.check_start()


def test_dilations_by_block_are_another_detector(work):
    def found(cfg):
        cfg.model.backbone = dict(
            type='mmcr.CRResNet',
            depth=18,
            base_channels=16,
            dilations=((1, 2), (1, 1), (3, 1), (1, 1)),
        )

    with pytest.raises(UserError, match='one int for a stage.*--from none'):
        work(found, checkpoint='mine.pth')


def test_the_own_path_is_on_every_front():
    rng = Random(0)
    widened = 0
    for _ in range(2000):
        cost, low = rng.randrange(1, 10**11), rng.choice([0.4, 0.5, 0.7, 0.9])
        for high in (1, 1.2, 2):
            value, tolerance = spanned(cost, low, high)
            bounds = ParamsBudget(value=value, tolerance=tolerance).bounds
            assert cost in bounds
            assert bounds.high == pytest.approx(high * cost)
            widened += tolerance != 100 * (high - low) / (high + low)
    assert 0 < widened < 1000  # runs begun without are gone on with


def test_the_budget_is_counted_on_images_as_they_are_padded(work):
    def wide(cfg):
        cfg.cost_shape = (100, 150)
        cfg.model.data_preprocessor.pad_size_divisor = 32

    made = work(wide, checkpoint='mine.pth', budget='macs')
    made.write()
    search = read_config('work/02_stage_search/config.py')
    assert list(search.test_cfg.budget.shape) == [128, 160]


def test_networks_of_the_users_are_marked(work):
    cfg = read('demo/shapes.py')
    cfg.model.backbone.depth = 34
    cfg.dump('r34.py')
    given = dict(checkpoint='mine.pth', front=[0.5, 2])
    trained = [dict(R18, name='deeper', config='r34.py', ap=40)]
    for budget in ('macs', 'params'):
        made = work(**given, budget=budget, trained=trained)
        made.write()
        ((name, (cost, ap)),) = made.finals.marked.items()
        expected = made.space.cost_of(Arch(dict(zip(made.own, (3, 4, 6, 3)))))
        expected /= made.space.cost_of(made.own)
        assert (name, ap) == ('deeper', 40) and expected > 1.5
        # mmengine's count has norms, too
        assert cost == pytest.approx(float(expected), rel=0.01)


def test_a_warm_reallocation_is_refused(work):
    with pytest.raises(UserError, match="method='detnas'.*--from none"):
        work(checkpoint='mine.pth', method='detnas')


@pytest.mark.slow
def test_from_a_checkpoint_to_the_comparison(work, monkeypatch, tmp_path):
    """With one seed that judges."""
    monkeypatch.setattr(settings, 'LEAST', 2)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    monkeypatch.setattr(reallocation, 'estimate', lambda path: Estimate(1, 2, 1, 1, 1))

    def short(cfg):
        cfg.train_cfg.update(max_epochs=2, val_interval=2)
        cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 4

    # one generation: what is drawn depends on no score, and some cost less than 1
    few = dict(population=10, generations=1, top=2, mutations=2, crossovers=2)

    def run():
        made = work(
            short,
            **dict(checkpoint='mine.pth', trainings=2, candidates=1),
            **dict(front=(0.5, 1, 1.2), search=dict(searcher=few)),
        )
        made.write()
        made.plan()
        return made.run(0)

    made_of_2 = {f'stage{i}': 2 for i in (1, 2, 3, 4)}
    text = run()
    record = json.loads(Path('work/result/comparison.json').read_text())
    rows = {row['name']: row for row in record['networks']}
    assert list(rows) == [
        *('baseline', 'found'),
        *('baseline as given', 'found as extracted', 'found trained alone'),
    ]
    assert 'trained on for 2 + 1 epochs' in text
    took = {name: row['trainings'] for name, row in rows.items()}
    assert took['baseline as given'] == 0
    assert 0 < took['found as extracted'] <= took['found'] and took['baseline'] > 0
    assert took['found trained alone'] == pytest.approx(took['found as extracted'] + 1)

    # the front, of the cost that was asked for
    front = json.loads(Path('work/result/front.json').read_text())
    assert front['baseline']['cost'] == 1 and front['baseline']['arch'] == made_of_2
    assert all(0.5 <= point['cost'] <= 1.2 for point in front['front'])
    for i, point in enumerate(front['front']):
        found = f'work/02_stage_search/front/{i}/best_arch.json'
        assert read_arch(found) == Arch(point['arch']) and point['place'] == i
    assert Path('work/result/front.png').stat().st_size > 1000
    assert text.startswith('| front/ |')
    (candidate,) = json.loads(Path('work/run_off.json').read_text())['candidates']
    assert (
        candidate['arch'] != made_of_2
        and rows['found']['macs'] <= 1.01 * (rows['baseline']['macs'])
    )

    # who starts from what, for how long
    names = {path.parent.name for path in Path('work').glob('06_judging/*/step.json')}
    name = next(n for n in names if n.endswith('alone_seed0')).split('_alone')[0]
    path = str(Path(f'work/paths/{name}.pth').resolve())
    read_step = {n: read_config(f'work/06_judging/{n}/config.py') for n in names}
    for step, start, epochs in (
        ('baseline_seed0', str(tmp_path / 'mine.pth'), 3),
        (f'{name}_seed0', path, 1),
        (f'{name}_alone_seed0', None, 2),
    ):
        cfg = read_step[step]
        assert (cfg.model.get('init_cfg') or {}).get('checkpoint') == start
        assert cfg.train_cfg.max_epochs == epochs
        assert cfg.optim_wrapper.optimizer.lr == (0.01 if start else 0.02)
    for step in ('baseline_given', f'{name}_extracted'):
        assert not list(Path(f'work/06_judging/{step}_seed0').glob('*.pth'))

    # the path is the supernet's, and nothing is made again
    arch = candidate['arch']
    supernet = torch.load('work/01_stage_supernet/epoch_2.pth', weights_only=False)
    chain, last = 'backbone.layer4.options.chain', arch['stage4'] - 1
    own = torch.load(path)['state_dict']
    for block in range(arch['stage4']):
        weight = supernet['state_dict'][f'{chain}.{block}.conv1.weight']
        assert torch.equal(own[f'backbone.layer4.{block}.conv1.weight'], weight)
    assert f'backbone.layer4.{last + 1}.conv1.weight' not in own
    before = Path(path).stat().st_mtime_ns
    assert run() == text and Path(path).stat().st_mtime_ns == before

    used = read_config(f'work/result/{record["use"].split()[0]}')
    assert not used.model.get('init_cfg') and used.train_cfg.max_epochs == 2
