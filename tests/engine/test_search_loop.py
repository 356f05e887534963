import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import (
    OPERATION,
    STAGE,
    build_detector,
    candidate_evaluator,
    detector_cfg,
    loader_cfg,
    metric_cfg,
    search_cfg,
    write_checkpoint,
)

from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import CheckpointError
from mmcr.search import Complete, Journal, JournalError, Proposal
from mmcr.space import Arch, BudgetError

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

GREEDY = dict(searcher=dict(type='mmcr.GreedySearcher', k=2, seed=4), num_minibatches=3)
KINDS = {'stage': (STAGE, {}), 'operation': (OPERATION, GREEDY)}


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp('checkpoints')
    return {
        kind: write_checkpoint(folder / f'{kind}.pth', backbone)
        for kind, (backbone, _) in KINDS.items()
    }


@pytest.fixture(scope='module', params=KINDS)
def finished(request, shapes, checkpoints, tmp_path_factory):
    """A kind of search, the work dir that it left, and what it returned."""
    work_dir = tmp_path_factory.mktemp('search')
    kind = request.param
    return kind, work_dir, search(shapes, work_dir, checkpoints, kind).test()


def search(shapes, work_dir, checkpoints, kind, **more):
    backbone, options = KINDS[kind]
    return Runner.from_cfg(
        search_cfg(shapes, work_dir, checkpoints[kind], backbone, **{**options, **more})
    )


def lines(work_dir):
    return [
        json.loads(line)
        for line in (work_dir / 'trials.jsonl').read_text().splitlines()
    ]


def test_journal(finished):
    kind, work_dir, _ = finished
    header, *trials = lines(work_dir)
    assert {
        'space',
        'searcher',
        'checkpoint',
        'score',
        'archval',
        'calibration',
        'num_minibatches',
    } <= header.keys()
    # greedy: 3 values, then 2 kept ones with 3 values each, three times
    assert len(trials) == {'stage': 8, 'operation': 3 + 6 + 6 + 6}[kind]
    assert len({trial['score'] for trial in trials}) > len(trials) // 2
    assert header['calibration']['images'] == 5


def test_result(finished):
    kind, work_dir, metrics = finished
    _, *trials = lines(work_dir)
    complete = [t for t in trials if len(t['candidate']['arch']) == 4]
    best = max(complete, key=lambda trial: trial['score'])
    assert metrics == best['metrics']
    record = json.loads((work_dir / 'best_arch.json').read_text())
    assert record['arch'] == best['candidate']['arch']
    assert record['score'] == best['score'] == metrics['coco/bbox_mAP']
    assert not list(work_dir.glob('*.partial'))


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
    if kind == 'stage':
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


def test_a_finished_search_answers_from_its_journal(
    finished, shapes, checkpoints, monkeypatch
):
    kind, work_dir, metrics = finished
    before = (work_dir / 'trials.jsonl').read_bytes()
    runner = search(shapes, work_dir, checkpoints, kind)
    monkeypatch.setattr(runner.test_loop.candidates, 'stream', None)
    assert runner.test() == metrics
    assert (work_dir / 'trials.jsonl').read_bytes() == before


@pytest.mark.parametrize('group_size, done', [(2, 4), (5, 5)])
def test_a_stopped_search_goes_on(
    finished, shapes, checkpoints, tmp_path, monkeypatch, group_size, done
):
    kind, whole, metrics = finished

    class Stopped(Exception):
        pass

    append = Journal.append

    def append_and_stop(journal, trial):
        append(journal, trial)
        if len(journal.scores) == done:
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Journal, 'append', append_and_stop)
        search(shapes, tmp_path, checkpoints, kind, group_size=group_size).test()
    assert len(lines(tmp_path)) == 1 + done
    assert not (tmp_path / 'best_arch.json').exists()

    runner = search(shapes, tmp_path, checkpoints, kind, group_size=3)
    scored = []
    stream = runner.test_loop.candidates.stream
    monkeypatch.setattr(
        runner.test_loop.candidates,
        'stream',
        lambda proposals, *args: scored.extend(proposals) or stream(proposals, *args),
    )
    assert runner.test() == metrics
    assert len(scored) == len(lines(whole)) - 1 - done
    for name in ('trials.jsonl', 'best_arch.json', 'best_arch.py'):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_several_budgets_give_what_each_gives_alone(shapes, checkpoints, tmp_path):
    budgets = [6, 7, dict(type='params', value=250_000, tolerance=20)]
    search(shapes, tmp_path / 'all', checkpoints, 'stage', budget=budgets).test()
    folders = ('budget_6', 'budget_7', 'budget_params_2.5e5_tol20')
    keys = set()
    for folder, budget in zip(folders, budgets):
        alone = tmp_path / folder
        search(shapes, alone, checkpoints, 'stage', budget=budget).test()
        for name in ('best_arch.json', 'best_arch.py'):
            found = (tmp_path / 'all' / folder / name).read_bytes()
            assert found == (alone / name).read_bytes()
        keys |= {json.dumps(trial['candidate']) for trial in trials_of(alone)}
    assert not (tmp_path / 'all/best_arch.json').exists()
    together = [json.dumps(trial['candidate']) for trial in trials_of(tmp_path / 'all')]
    assert len(together) == len(set(together)) and set(together) == keys


def trials_of(work_dir):
    return lines(work_dir)[1:]


def test_the_backend_of_the_metric_is_no_condition(checkpoints, shapes, tmp_path):
    for backend in ('pycocotools', 'faster_coco_eval'):
        cfg = search_cfg(shapes, tmp_path, checkpoints['stage'], budget=6)
        cfg.test_evaluator.backend = backend
        Runner.from_cfg(cfg).test()


def test_a_line_that_was_cut_off_is_scored_again(
    finished, shapes, checkpoints, tmp_path
):
    kind, whole, metrics = finished
    content = (whole / 'trials.jsonl').read_bytes()
    (tmp_path / 'trials.jsonl').write_bytes(content[:-20])
    assert search(shapes, tmp_path, checkpoints, kind).test() == metrics
    assert (tmp_path / 'trials.jsonl').read_bytes() == content


@pytest.mark.parametrize(
    'change, field',
    [
        (dict(searcher=dict(type='mmcr.GreedySearcher', k=2, seed=5)), 'searcher.seed'),
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
@pytest.mark.parametrize('finished', ['operation'], indirect=True)
def test_the_journal_of_another_search_is_refused(
    finished, shapes, checkpoints, tmp_path, change, field
):
    kind, whole, _ = finished
    content = (whole / 'trials.jsonl').read_bytes()
    (tmp_path / 'trials.jsonl').write_bytes(content)
    if change.pop('checkpoint', None):
        checkpoints = {kind: write_checkpoint(tmp_path / 'other.pth', OPERATION, 1)}
    cfg = search_cfg(shapes, tmp_path, checkpoints[kind], OPERATION)
    cfg.test_dataloader.batch_size = change.pop('batch_size', 2)
    if 'data_preprocessor' in change:  # mmengine takes it beside the model, too
        cfg.data_preprocessor = change.pop('data_preprocessor')
    cfg.test_cfg.update({**GREEDY, **change})
    with pytest.raises(JournalError, match=f'{field} is .* in the file and'):
        Runner.from_cfg(cfg).test()
    assert (tmp_path / 'trials.jsonl').read_bytes() == content


def test_budget(shapes, checkpoints, tmp_path):
    search(
        shapes,
        tmp_path,
        checkpoints,
        'stage',
        budget=7,
        final_backbone=dict(base_channels=16, norm_eval=True),
    ).test()
    header, *trials = lines(tmp_path)
    assert header['space']['budget'] == dict(low=7, high=7)
    assert [tuple(t['candidate']['arch'].values()) for t in trials] == [
        (1, 1, 2, 3),
        (1, 2, 2, 2),
        (2, 1, 2, 2),
    ]
    backbone = Config.fromfile(tmp_path / 'best_arch.py').cr_backbone
    assert (backbone.base_channels, backbone.norm_eval) == (16, True)
    assert sum(backbone.stage_blocks) == 7
    assert Config.fromfile(tmp_path / 'best_arch.py').cr_neck_in_channels == [
        16,
        32,
        64,
        128,
    ]


def test_impossible_budgets(shapes, checkpoints, tmp_path):
    with pytest.raises(BudgetError, match='exactly 5.*reachable costs are 6'):
        search(shapes, tmp_path, checkpoints, 'stage', budget=5).test()
    with pytest.raises(BudgetError, match='add no blocks'):
        search(shapes, tmp_path, checkpoints, 'operation', budget=4).test()
    with pytest.raises(UserError, match='names of their own.*budget_6, budget_6'):
        search(shapes, tmp_path, checkpoints, 'stage', budget=[6, 6.0]).test()
    assert not (tmp_path / 'trials.jsonl').exists()


def bad_checkpoint(name, path):
    if name == 'missing':
        return path
    if name == 'none':
        return None
    if name == 'address':
        return 'https://example.org/supernet.pth'
    if name == 'garbage':
        path.write_bytes(b'no checkpoint at all')
        return path
    if name == 'list':
        torch.save([1, 2, 3], path)
        return path
    if name == 'diverged':
        state = build_detector(STAGE).state_dict()
        state['rpn_head.rpn_cls.bias'][0] = float('nan')
        torch.save(dict(state_dict=state), path)
        return path
    if name == 'head':
        cfg = detector_cfg(STAGE)
        cfg.roi_head.bbox_head.num_classes = 3
        torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), path)
        return path
    other = dict(
        fixed={},
        kind=OPERATION,
        depth=dict(STAGE, depth=50),
        values=dict(STAGE, stage_choices={**STAGE['stage_choices'], 'stage4': (2, 4)}),
    )
    return write_checkpoint(path, other[name])


@pytest.mark.parametrize(
    'name, words',
    [
        ('missing', 'there is no file'),
        ('none', 'no checkpoint is given'),
        ('address', 'takes a file'),
        ('garbage', 'reading it fails'),
        ('list', 'must hold weights by name'),
        ('fixed', 'weights of a fixed backbone'),
        ('kind', 'another space or detector'),
        ('depth', 'another space'),
        ('values', r'another space.*layer4\.options\.[34]'),
        ('head', r'another space or detector.*bbox_head\.fc_cls\.\w+ has shape'),
        ('diverged', r'1 of \d+ hold NaN or infinity, such as rpn_head\.rpn_cls\.bias'),
    ],
)
def test_checkpoints_that_do_not_fit(shapes, tmp_path, name, words):
    checkpoint = bad_checkpoint(name, tmp_path / 'bad.pth')
    runner = Runner.from_cfg(search_cfg(shapes, tmp_path / 'work', checkpoint))
    with pytest.raises(CheckpointError, match=words) as error:
        runner.test()
    assert checkpoint is None or str(checkpoint) in str(error.value)
    assert not (tmp_path / 'work/trials.jsonl').exists()


def test_checkpoints_of_wrapped_models_and_bare_weights_fit(
    shapes, checkpoints, tmp_path
):
    state = torch.load(checkpoints['stage'])['state_dict']
    torch.save(
        {f'module.{key}': value for key, value in state.items()}, tmp_path / 'bare.pth'
    )
    search(
        shapes, tmp_path, dict(stage=tmp_path / 'bare.pth'), 'stage', budget=6
    ).test()
    assert len(lines(tmp_path)) == 2


def test_scores_are_the_evaluators(finished, shapes):
    kind, work_dir, _ = finished
    _, *trials = lines(work_dir)
    candidates = candidate_evaluator(
        build_detector(KINDS[kind][0]), shapes, calibration_images=5
    )
    complete = [t for t in trials if len(t['candidate']['arch']) == 4][:2]
    assert [
        trial.metrics
        for trial in candidates.evaluate(
            [Proposal(Complete(Arch(t['candidate']['arch']))) for t in complete]
        )
    ] == [t['metrics'] for t in complete]


def test_retired_options_are_taken_with_a_warning(shapes, checkpoints, tmp_path):
    with pytest.warns(
        FutureWarning, match='memory and workers .*no effect.*leave them out'
    ) as all:
        search(
            shapes, tmp_path, checkpoints, 'stage', budget=6, memory=1.0, workers=1
        ).test()
    assert len([w for w in all if w.category is FutureWarning]) == 1


def test_a_detector_without_a_supernet_cannot_be_searched(shapes, tmp_path):
    with pytest.raises(UserError, match='must be a supernet'):
        Runner.from_cfg(search_cfg(shapes, tmp_path, None, {})).test()


def test_calibration_images_are_the_training_sets_by_default(
    shapes, checkpoints, tmp_path
):
    cfg = search_cfg(shapes, tmp_path, checkpoints['stage'], budget=6)
    cfg.test_cfg.pop('calibration_dataloader')
    with pytest.raises(UserError, match='calibration_dataloader'):
        Runner.from_cfg(cfg).test()
    cfg.update(
        train_dataloader=loader_cfg(shapes, 'archtrain', 3),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    runner = Runner.from_cfg(cfg)
    runner.test()
    calibration = runner.test_loop.candidates.calibration
    assert calibration.dataset.ann_file.endswith('archtrain.json')
    assert len(calibration.sampler) == 5 and calibration.batch_size == 2


def test_metrics_of_the_config_are_built_once(shapes, checkpoints, tmp_path):
    cfg = search_cfg(shapes, tmp_path, checkpoints['stage'], budget=6)
    cfg.test_evaluator = [metric_cfg(shapes), metric_cfg(shapes, prefix='again')]
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['again/bbox_mAP'] == metrics['coco/bbox_mAP'] > 0
