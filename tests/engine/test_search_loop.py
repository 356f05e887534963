"""The search loop: journal, result and what it refuses."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from searches import GREEDY, SEARCHES, cfg_of, search
from tiny import (
    OPERATION,
    STAGE,
    archval_cfg,
    build_detector,
    candidate_evaluator,
    detector_cfg,
    left_by,
    loader_cfg,
    metric_cfg,
    runner_cfg,
    search_cfg,
    write_checkpoint,
)

from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.report import write_report
from mmcr.scoring import evaluator
from mmcr.search import Complete, JournalError, Proposal, Trial, UnrankedError
from mmcr.space import Arch, BudgetError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture(scope='module', params=['exhaustive', 'greedy', 'evolution'])
def finished(request, supernets, tmp_path_factory):
    """A kind of search, the work dir that it left, and what it returned."""
    work_dir = tmp_path_factory.mktemp('search')
    return request.param, work_dir, search(supernets, work_dir, request.param)


def lines(work_dir):
    return [*map(json.loads, (work_dir / 'trials.jsonl').open())]


def test_journal_and_result(finished, supernets):
    kind, work_dir, metrics = finished
    header, *trials = lines(work_dir)
    assert header['calibration']['images'] == 5
    # greedy: 3 values, then 2 kept ones with 3 values each, three times
    assert len(trials) == dict(exhaustive=8, greedy=3 + 6 + 6 + 6, evolution=6)[kind]
    assert len({trial['score'] for trial in trials}) > len(trials) // 2
    complete = [t for t in trials if len(t['candidate']['arch']) == 4]
    best = max(complete, key=lambda trial: trial['score'])
    assert metrics == best['metrics']
    record = json.loads((work_dir / 'best_arch.json').read_text())
    assert record['arch'] == best['candidate']['arch']
    assert record['score'] == best['score'] == metrics['coco/bbox_mAP']
    assert not list(work_dir.glob('*.partial'))

    model = build_detector(SEARCHES[kind][0])
    candidates = candidate_evaluator(model, supernets, calibration_images=5)
    archs = [Arch(trial['candidate']['arch']) for trial in complete[:2]]
    scored = candidates.evaluate([Proposal(Complete(arch)) for arch in archs])
    assert [t.metrics for t in scored] == [t['metrics'] for t in complete[:2]]


def test_best_arch_is_a_config_fragment(finished, tmp_path):
    kind, work_dir, _ = finished
    (tmp_path / 'detector.py').write_text(
        "_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', "
        f'{str(work_dir / "best_arch.py")!r}]\n'
        'model = dict(backbone=_base_.cr_backbone, '
        'neck=dict(in_channels=_base_.cr_neck_in_channels))'
    )
    model = MODELS.build(Config.fromfile(tmp_path / 'detector.py').model)
    arch = json.loads((work_dir / 'best_arch.json').read_text())['arch']
    assert model.backbone.space is None
    if kind != 'greedy':
        assert model.backbone.stage_blocks == tuple(arch.values())
    else:
        assert model.backbone.stage_blocks == (1, 1, 1, 1)
        assert [
            getattr(model.backbone, layer)[0].conv2.dilation[0]
            for layer in model.backbone.res_layers
        ] == list(arch.values())
    assert [out.shape[1] for out in model.backbone(torch.zeros(1, 3, 64, 64))] == [
        conv.conv.in_channels for conv in model.neck.lateral_convs
    ]


@pytest.mark.parametrize('kept', [1, 5, -1, None])
def test_a_journal_cut_anywhere_goes_on(
    finished, supernets, tmp_path, monkeypatch, kept
):
    """Also by groups of another size; what it holds whole is not scored again."""
    kind, work_dir, metrics = finished
    journal = (work_dir / 'trials.jsonl').read_bytes().splitlines(keepends=True)
    rest = journal[kept:] if kept else []
    torn = b''.join(journal[:kept]) + b''.join(rest)[:30]
    (tmp_path / 'trials.jsonl').write_bytes(torn)
    runner = Runner.from_cfg(cfg_of(supernets, tmp_path, kind, group_size=2))
    scored = []
    stream = runner.test_loop.candidates.stream
    monkeypatch.setattr(
        runner.test_loop.candidates,
        'stream',
        lambda proposals, *args: scored.extend(proposals) or stream(proposals, *args),
    )
    assert runner.test() == metrics
    assert len(scored) == len(rest)
    assert left_by(tmp_path) == left_by(work_dir)


def test_several_budgets_give_what_each_gives_alone(supernets, tmp_path):
    budgets = [6, 7, dict(type='params', value=250_000, tolerance=20)]
    together = tmp_path / 'all'
    search(supernets, together, 'exhaustive', budget=budgets)
    keys = set()
    for folder, budget in zip(
        ('budget_6', 'budget_7', 'budget_params_2.5e5_tol20'), budgets
    ):
        alone = tmp_path / folder
        search(supernets, alone, 'exhaustive', budget=budget)
        for name in ('best_arch.json', 'best_arch.py'):
            found = (together / folder / name).read_bytes()
            assert found == (alone / name).read_bytes()
        keys |= {json.dumps(trial['candidate']) for trial in lines(alone)[1:]}
    assert not (together / 'best_arch.json').exists()
    scored = [json.dumps(trial['candidate']) for trial in lines(together)[1:]]
    assert len(scored) == len(set(scored)) and set(scored) == keys


@pytest.mark.parametrize(
    'change, field',
    [
        (dict(searcher=dict(GREEDY, seed=5)), 'searcher.seed'),
        (dict(searcher=dict(type='mmcr.ExhaustiveSearcher')), 'searcher.kind'),
        (dict(calibration_images=4), 'calibration.images'),
        (dict(calibration_images=0), 'calibration.images'),
        (dict(num_minibatches=2), 'num_minibatches'),
        (dict(score='coco/bbox_mAP_s'), 'score'),
        (dict(checkpoint=1), 'checkpoint'),
        (dict(batch_size=3), 'archval.batch_size'),
        (dict(data_preprocessor=dict(type='DetDataPreprocessor', std=[9])), 'detector'),
    ],
)
@pytest.mark.parametrize('finished', ['greedy'], indirect=True)
def test_the_journal_of_another_search_is_refused(
    finished, supernets, tmp_path, change, field
):
    kind, work_dir, _ = finished
    content = (work_dir / 'trials.jsonl').read_bytes()
    (tmp_path / 'trials.jsonl').write_bytes(content)
    if change.pop('checkpoint', None):
        change['checkpoint'] = write_checkpoint(tmp_path / 'other.pth', OPERATION, 1)
    batch_size = change.pop('batch_size', 2)
    preprocessor = change.pop('data_preprocessor', None)
    cfg = cfg_of(supernets, tmp_path, kind, **change)
    cfg.test_dataloader.batch_size = batch_size
    if preprocessor:  # mmengine takes it beside the model, too
        cfg.data_preprocessor = preprocessor
    with pytest.raises(JournalError, match=f'{field} is .* in the file and'):
        Runner.from_cfg(cfg).test()
    assert (tmp_path / 'trials.jsonl').read_bytes() == content


def test_the_backend_of_the_metric_is_no_condition(supernets, tmp_path):
    for backend in ('pycocotools', 'faster_coco_eval'):
        cfg = cfg_of(supernets, tmp_path, 'exhaustive', budget=6)
        cfg.test_evaluator.backend = backend
        Runner.from_cfg(cfg).test()


def test_budget(supernets, tmp_path):
    wider = dict(base_channels=16, norm_eval=True)
    search(supernets, tmp_path, 'exhaustive', budget=7, final_backbone=wider)
    header, *trials = lines(tmp_path)
    assert header['space']['budget'] == dict(low=7, high=7)
    assert [tuple(t['candidate']['arch'].values()) for t in trials] == [
        (1, 1, 2, 3),
        (1, 2, 2, 2),
        (2, 1, 2, 2),
    ]
    found = Config.fromfile(tmp_path / 'best_arch.py')
    assert (found.cr_backbone.base_channels, found.cr_backbone.norm_eval) == (16, True)
    assert sum(found.cr_backbone.stage_blocks) == 7
    assert found.cr_neck_in_channels == [16, 32, 64, 128]


@pytest.mark.parametrize(
    'kind, budget, words',
    [
        ('exhaustive', 5, 'exactly 5.*reachable costs are 6'),
        ('greedy', 4, 'add no blocks'),
        ('exhaustive', [6, 6.0], 'names of their own.*budget_6, budget_6'),
    ],
)
def test_impossible_budgets(supernets, tmp_path, kind, budget, words):
    with pytest.raises(UserError, match=words) as error:
        search(supernets, tmp_path, kind, budget=budget)
    assert isinstance(error.value, BudgetError) != isinstance(budget, list)
    assert not (tmp_path / 'trials.jsonl').exists()


def bad_checkpoint(name, path):
    if name == 'diverged':
        state = build_detector(STAGE).state_dict()
        state['rpn_head.rpn_cls.bias'][0] = float('nan')
        torch.save(dict(state_dict=state), path)
    elif name == 'head':
        cfg = detector_cfg(STAGE)
        cfg.roi_head.bbox_head.num_classes = 3
        torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), path)
    else:
        other = dict(
            fixed={},
            kind=OPERATION,
            depth=dict(STAGE, depth=50),
            values=dict(
                STAGE, stage_choices={**STAGE['stage_choices'], 'stage4': (2, 4)}
            ),
        )
        write_checkpoint(path, other[name])
    return path


@pytest.mark.parametrize(
    'name, words',
    [
        (None, 'no checkpoint is given'),
        ('https://example.org/supernet.pth', 'takes a file'),
        ('fixed', 'weights of a fixed backbone'),
        ('kind', 'another space or detector'),
        ('depth', 'another space'),
        ('values', r'another space.*layer4\.options\.[34]'),
        ('head', r'another space or detector.*bbox_head\.fc_cls\.\w+ has shape'),
        ('diverged', r'1 of \d+ hold NaN or infinity, such as rpn_head\.rpn_cls\.bias'),
    ],
)
def test_checkpoints_that_do_not_fit(shapes, tmp_path, name, words):
    given = name is None or '://' in name
    checkpoint = name if given else bad_checkpoint(name, tmp_path / 'bad.pth')
    runner = Runner.from_cfg(search_cfg(shapes, tmp_path / 'work', checkpoint))
    with pytest.raises(CheckpointError, match=words) as error:
        runner.test()
    assert checkpoint is None or str(checkpoint) in str(error.value)
    assert not (tmp_path / 'work/trials.jsonl').exists()


def test_checkpoints_of_wrapped_models_and_bare_weights_fit(supernets, tmp_path):
    state = torch.load(supernets / 'stage.pth')['state_dict']
    bare = tmp_path / 'bare.pth'
    torch.save({f'module.{key}': value for key, value in state.items()}, bare)
    search(supernets, tmp_path, 'exhaustive', bare, budget=6)
    assert len(lines(tmp_path)) == 2


def test_retired_options_are_taken_with_a_warning(supernets, tmp_path):
    said = 'memory and workers .*no effect.*leave them out'
    with pytest.warns(FutureWarning, match=said) as warned:
        search(supernets, tmp_path, 'exhaustive', budget=6, memory=1.0, workers=1)
    assert len([w for w in warned if w.category is FutureWarning]) == 1


def test_a_detector_without_a_supernet_cannot_be_searched(shapes, tmp_path):
    with pytest.raises(UserError, match='must be a supernet'):
        Runner.from_cfg(search_cfg(shapes, tmp_path, None, {})).test()


def test_calibration_images_are_the_training_sets_by_default(supernets, tmp_path):
    cfg = cfg_of(supernets, tmp_path, 'exhaustive', budget=6)
    cfg.test_cfg.pop('calibration_dataloader')
    with pytest.raises(UserError, match='calibration_dataloader'):
        Runner.from_cfg(cfg).test()
    cfg.update(
        train_dataloader=loader_cfg(supernets, 'archtrain', 3),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    runner = Runner.from_cfg(cfg)
    runner.test()
    calibration = runner.test_loop.candidates.calibration
    assert calibration.dataset.ann_file.endswith('archtrain.json')
    assert len(calibration.sampler) == 5 and calibration.batch_size == 2


def test_metrics_of_the_config_are_built_once(supernets, tmp_path):
    cfg = cfg_of(supernets, tmp_path, 'exhaustive', budget=6)
    cfg.test_evaluator = [metric_cfg(supernets), metric_cfg(supernets, prefix='again')]
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['again/bbox_mAP'] == metrics['coco/bbox_mAP'] > 0


@pytest.mark.parametrize('score', ['coco/bbox_mAP_l', 'coco/bbox_mAP_x'])
def test_a_score_that_archval_does_not_define_is_refused_first(
    supernets, tmp_path, score
):
    runner = Runner.from_cfg(cfg_of(supernets, tmp_path, 'exhaustive', score=score))
    runner.test_loop.candidates.stream = None  # nothing is scored
    with pytest.raises(UserError, match='score must .*coco/bbox_mAP_s'):
        runner.test()
    assert not (tmp_path / 'trials.jsonl').exists()


def with_scores(runner, monkeypatch, score):
    def stream(proposals, *args):
        for p in proposals:
            yield Trial(p, score(p), {'coco/bbox_mAP': score(p)})

    monkeypatch.setattr(runner.test_loop.candidates, 'stream', stream)
    return runner


def test_equal_scores_leave_no_best(supernets, tmp_path, monkeypatch):
    """What an earlier search left is set aside; other budgets keep their results."""
    cfg = cfg_of(supernets, tmp_path, 'exhaustive', budget=[7, 8])
    for name in ('budget_7', 'budget_8'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'best_arch.json').write_text('earlier')

    def score(proposal):
        arch = proposal.candidate.arch
        return 0.0 if sum(arch.values()) == 7 else 0.1 * arch['stage1'] + 0.1

    runner = with_scores(Runner.from_cfg(cfg), monkeypatch, score)
    with pytest.raises(
        UnrankedError, match='budget_7: .* of 3 at the end, every score'
    ):
        runner.test()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('best_arch*')}
    assert left == {
        'budget_7/best_arch.json.old1',
        'budget_8/best_arch.json',
        'budget_8/best_arch.py',
    }
    assert (tmp_path / 'budget_7/best_arch.json.old1').read_text() == 'earlier'
    assert len(lines(tmp_path)) > 4
    words = write_report(tmp_path).read_text()
    assert 'do not tell' in words and words.count('Best architecture:') == 1


def test_a_front_of_equals_is_none(supernets, tmp_path, monkeypatch):
    cfg = cfg_of(supernets, tmp_path, 'evolution')
    (tmp_path / 'front/0').mkdir(parents=True)
    (tmp_path / 'front.json').write_text('earlier')
    runner = with_scores(Runner.from_cfg(cfg), monkeypatch, lambda p: 0.5)
    with pytest.raises(UnrankedError):
        runner.test()
    assert not (tmp_path / 'front.json').exists() and not (tmp_path / 'front').exists()
    assert 'Front' not in write_report(tmp_path).read_text()


def test_one_failure_keeps_the_scores_of_its_group(supernets, tmp_path, monkeypatch):
    runner = Runner.from_cfg(cfg_of(supernets, tmp_path, 'exhaustive'))
    computed = []

    def compute(*args):
        computed.append(evaluator.compute_all(*args))
        if len(computed) == 1:
            return {'coco/bbox_mAP': float('nan')}
        return computed[-1]

    monkeypatch.setattr(evaluator, 'compute_all', evaluator.compute, raising=False)
    monkeypatch.setattr(evaluator, 'compute', compute)
    with pytest.raises(UserError, match='must be a finite number'):
        runner.test()
    assert len(computed) == 3 == len(lines(tmp_path))  # a header and two of a group


def test_scores_that_say_nothing_are_said_while_a_supernet_trains(
    supernets, tmp_path, monkeypatch
):
    cfg = runner_cfg(tmp_path, STAGE, **archval_cfg(supernets, dict(a=[1, 1, 2, 2])))
    cfg.val_cfg.update(score='coco/bbox_mAP_l', calibration_images=0)
    runner = Runner.from_cfg(cfg)
    said = []
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    runner.val()
    assert len(said) == 1 and 'coco/bbox_mAP_l of all val_cfg.archs is -1' in said[0]


def test_a_round_of_equals_is_said(supernets, tmp_path, monkeypatch):
    def score(proposal):
        arch = proposal.candidate.arch
        return 0.1 * sum(arch.values()) if len(arch) > 2 else 0.1

    cfg = cfg_of(supernets, tmp_path, 'greedy')
    runner = with_scores(Runner.from_cfg(cfg), monkeypatch, score)
    said = []
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    runner.test()
    assert ['have equal scores, such as 0.1' in text for text in said] == [True] * 2
