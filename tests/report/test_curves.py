"""Scores of a run as a visualizer's backends get them."""

import json
from copy import deepcopy

import pytest
from mmengine.registry import VISUALIZERS
from pages import search

from mmcr.report.contest_table import ContestTable
from mmcr.report.curves import write_curves
from mmcr.search import ExhaustiveSearcher, HalvingSearcher, read_journal
from mmcr.space import resnet_stage_space


def curves_of(folder, *backends, **more):
    """Writes curves of a search and a contest; what LocalVisBackend got."""
    search(folder, ExhaustiveSearcher(resnet_stage_space(7)))
    table = ContestTable({'baseline': {0: 30.0}, 'a': {0: 31.0, 1: 32.0}}, 'baseline')
    kinds = [dict(type=f'{name}VisBackend') for name in ('Local', *backends)]
    cfg = dict(type='mmdet.DetLocalVisualizer', vis_backends=kinds, **more)
    before = deepcopy(cfg)
    journals = {'02_search': folder / 'trials.jsonl'}
    write_curves(cfg, folder / 'seen', journals, {'06_judging': table})
    assert cfg == before  # still the user's
    (file,) = folder.glob('seen/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_score_goes_to_the_backends(tmp_path):
    lines = curves_of(tmp_path)
    trials = read_journal(tmp_path / 'trials.jsonl')[1]
    scores = [100 * trial['score'] for trial in trials]
    found = [line for line in lines if '02_search/score' in line]
    assert [line['02_search/score'] for line in found] == scores and len(scores) > 2
    assert [line['step'] for line in found] == list(range(1, len(scores) + 1))
    assert [line['02_search/best'] for line in found] == [
        max(scores[: i + 1]) for i in range(len(scores))
    ]
    judged = [line for line in lines if '02_search/score' not in line]
    assert judged == [
        {'06_judging/baseline': 30.0, 'step': 0},
        {'06_judging/a': 31.0, 'step': 0},
        {'06_judging/a_ahead': 1.0, 'step': 0},
        {'06_judging/a': 32.0, 'step': 1},
    ]


def test_tensorboard_shows_the_same(tmp_path):
    events = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    lines = curves_of(tmp_path, 'Tensorboard')
    board = events.EventAccumulator(str(tmp_path / 'seen/vis_data'))
    board.Reload()
    tags = {tag for line in lines for tag in line if tag != 'step'}
    assert set(board.Tags()['scalars']) == tags and '06_judging/a_ahead' in tags
    for tag in tags:
        shown = {each.step: each.value for each in board.Scalars(tag)}
        told = {line['step']: line[tag] for line in lines if tag in line}
        assert shown == pytest.approx(told)


def test_a_visualizer_of_the_same_name_keeps_its_files(tmp_path):
    backends = [dict(type='LocalVisBackend')]
    cfg = dict(type='mmdet.DetLocalVisualizer', name='mine', vis_backends=backends)
    runners = VISUALIZERS.build(dict(cfg, save_dir=str(tmp_path / 'run')))
    runners.add_scalar('loss', 2.0, 1)
    assert len(curves_of(tmp_path, name='mine')) > 2
    runners.add_scalar('loss', 1.0, 2)
    (file,) = tmp_path.glob('run/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [{'loss': 2.0, 'step': 1}, {'loss': 1.0, 'step': 2}]


def test_the_best_is_of_complete_architectures_on_all_of_archval(tmp_path):
    space = resnet_stage_space(7)
    search(tmp_path, HalvingSearcher(space, rungs=2, eta=2, finalists=2))
    journal = tmp_path / 'trials.jsonl'
    backends = [dict(type='LocalVisBackend')]
    cfg = dict(type='mmdet.DetLocalVisualizer', name='best', vis_backends=backends)
    write_curves(cfg, tmp_path / 'seen', dict(search=journal), {})
    (file,) = tmp_path.glob('seen/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    trials = read_journal(journal)[1]
    whole = [100 * trial['score'] for trial in trials if trial['portion'] == [0, 1]]
    assert len(whole) < len(trials) and lines[-1]['search/best'] == max(whole)
    assert 'search/best' not in lines[0]
