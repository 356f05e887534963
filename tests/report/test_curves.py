"""Scores of a run as a visualizer's backends get them."""

import json

from pages import search

from mmcr.report.contest_table import ContestTable
from mmcr.report.curves import write_curves
from mmcr.search import ExhaustiveSearcher, HalvingSearcher, read_journal
from mmcr.space import resnet_stage_space


def test_every_score_goes_to_the_backends(tmp_path):
    search(tmp_path, ExhaustiveSearcher(resnet_stage_space(7)))
    journal = tmp_path / 'trials.jsonl'
    table = ContestTable({'baseline': {0: 30.0}, 'a': {0: 31.0, 1: 32.0}}, 'baseline')
    cfg = dict(type='mmdet.DetLocalVisualizer')
    cfg['vis_backends'] = [dict(type='LocalVisBackend')]
    write_curves(cfg, tmp_path / 'seen', {'02_search': journal}, {'06_judging': table})
    (file,) = tmp_path.glob('seen/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    scores = [100 * trial['score'] for trial in read_journal(journal)[1]]
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
    assert cfg['vis_backends'] == [dict(type='LocalVisBackend')]  # still the user's


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
