"""The gate before a search, and what its images cannot tell apart after it."""

import json

import numpy as np
import pytest
from searches import cfg_of, search
from tiny import STAGE, build_detector, candidate_evaluator

from mmcr.engine.gate import Gate, check_open, look, not_told_apart
from mmcr.errors import UserError
from mmcr.report import write_report
from mmcr.search import Complete, Proposal


@pytest.fixture(scope='module')
def candidates(supernets):
    return candidate_evaluator(build_detector(STAGE), supernets, calibration_images=5)


def test_archval_as_it_is_has_the_search_scores(candidates):
    archs = list(candidates.backbone.space)[:3]
    trials = candidates.evaluate([Proposal(Complete(arch)) for arch in archs])
    aps = candidates.resampled(archs[::-1], resamples=4, seed=1)[::-1]
    assert aps.shape == (3, 5)
    assert aps[:, 0] == pytest.approx([trial.score for trial in trials], abs=1e-9)
    again = candidates.resampled(archs[:1], resamples=4, seed=1)
    assert np.array_equal(again, aps[:1])


def test_reference_paths_and_random_members(candidates):
    space = candidates.backbone.space
    first = next(iter(space))
    gate = look(candidates, space, dict(baseline=first))
    assert list(gate.aps)[0] == 'baseline' and len(gate.aps) == 6
    assert gate.noise > 0 and 0 < gate.p <= 1 and gate.images == 7


@pytest.mark.parametrize('p, is_open', [(0.01, True), (0.6, False)])
def test_what_a_closed_gate_does(p, is_open):
    gate = Gate(dict(baseline=20.0, deep=21.5), 0.8, p, 400)
    assert gate.is_open is is_open
    if is_open:
        assert check_open(gate, 'stop') is None
        return
    warning = check_open(gate, 'warn')
    assert '400 images cannot tell 2 networks' in warning and 'p = 0.6' in warning
    assert 'baseline 20.00, deep 21.50 AP' in warning and 'share="prefix"' in warning
    with pytest.raises(UserError, match='mostly chance.*--gate warn'):
        check_open(gate, 'stop')


def test_the_first_is_one_of_those_not_told_apart(candidates):
    archs = list(candidates.backbone.space)[:4]
    found = not_told_apart(candidates, archs)
    assert found['of'] == 4 and found['images'] == 7
    first = found['same'][0]
    assert first['arch'] == archs[0].to_json()
    assert first['behind'] == first['low'] == first['high'] == 0


def test_a_search_with_a_gate(supernets, tmp_path):
    search(supernets, tmp_path / 'work', 'joint', gate='warn')
    for budget in ('budget_7', 'budget_8'):
        path = tmp_path / 'work' / budget / 'not_told_apart.json'
        found = json.loads(path.read_text())
        assert 1 <= len(found['same']) <= found['of'] == 2
    page = write_report(tmp_path / 'work').read_text()
    assert page.count('images cannot tell') == 2
    with pytest.raises(UserError, match="gate must be None, warn or stop, but got 'a'"):
        search(supernets, tmp_path / 'other', 'joint', gate='a')


def test_a_search_that_stops_at_the_gate(supernets, tmp_path, monkeypatch):
    monkeypatch.setattr('mmcr.engine.gate.SIGNIFICANT', 0.0)
    with pytest.raises(UserError, match='cannot tell'):
        search(supernets, tmp_path, 'exhaustive', gate='stop')
    assert not (tmp_path / 'best_arch.json').exists()
    assert len((tmp_path / 'trials.jsonl').read_text().splitlines()) == 1
    assert cfg_of(supernets, tmp_path, 'exhaustive').test_cfg.get('gate') is None
