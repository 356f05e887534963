"""The benchmark of search speed, at the smallest size."""

import json
import runpy
import sys

import pytest
from scripts import BENCHMARKS
from tiny import search_cfg


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Calls the benchmark's main in this process; returns what it wrote so far."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def call(*arguments) -> dict:
        given = *arguments, '--out', tmp_path, '--device', 'cpu'
        monkeypatch.setattr(sys, 'argv', ['search_speed.py', *map(str, given)])
        runpy.run_path(str(BENCHMARKS / 'search_speed.py'), run_name='__main__')
        return json.loads((tmp_path / 'search_speed.json').read_text())

    return call


@pytest.fixture
def refused(run, capsys):
    """Calls it with a mistake of the user's; returns what it says."""

    def call(*arguments) -> str:
        with pytest.raises(SystemExit):
            run(*arguments)
        return capsys.readouterr().err

    return call


def scores_of(result: dict, way: str) -> dict[str, float]:
    runs = result['runs'][way].values()
    return {str(arch): score for run in runs for arch, score in run['scores']}


@pytest.fixture(scope='module')
def search(supernets, tmp_path_factory):
    """A search config and a checkpoint of its supernet."""
    config = tmp_path_factory.mktemp('search') / 'search.py'
    search_cfg(supernets, config.parent, None).dump(config)
    return config, supernets / 'stage.pth'


def test_the_three_ways_are_timed_and_agree(run, search, tmp_path, capsys):
    result = run(
        *(*search, '--repeats', 2, '--seeds', 3, '--plain'),
        *('--candidates', 5, '--calibration', 3),
        *('--halving', 'rungs=2', 'eta=2', 'finalists=2'),
    )
    assert result['setting']['calibration_images'] == 3
    assert result['setting']['archval_images'] == 7
    naive, exact = (scores_of(result, way) for way in 'ab')
    assert set(naive) == set(exact)
    assert len(naive) == 5
    assert len(set(naive.values())) > 1
    assert result['largest_score_difference'] < 1e-9
    assert len(result['ratios']['b']) == len(result['ratios']['c']) == 2
    assert len(result['regrets']) == 3 and min(result['regrets']) >= 0
    for way in 'abc':
        seconds = result['seconds_per_candidate'][way]
        assert min(seconds) > 0 and len(seconds) == (3 if way == 'c' else 2)
        split = result['split'][way]
        assert all(split[part] > 0 for part in split), split
    table = (tmp_path / 'search_speed.md').read_text()
    assert '| (c) ours, halving |' in table
    assert table in capsys.readouterr().out


def test_a_stopped_benchmark_goes_on_and_the_naive_loop_may_score_fewer(
    run, refused, search
):
    arguments = (
        *(*search, '--repeats', 1, '--candidates', 4, '--naive', 2),
        *('--archval', 4, '--calibration', 2),
    )
    first = run(*arguments, '--seeds', 1)
    assert first['setting']['archval_images'] == 4
    assert [len(scores_of(first, way)) for way in 'ab'] == [2, 4]
    assert first['largest_score_difference'] < 1e-9
    both = run(*arguments, '--seeds', 2)
    new = both['runs']['c'].pop('1')
    assert both['runs'] == first['runs'] and new['seconds'] > 0
    assert len(both['regrets']) == 2
    for changed, name in (
        (('--archval', 3), 'archval_images'),
        (('--cfg-options', 'model.test_cfg.rpn.nms_pre=10'), 'cfg_options'),
    ):
        assert f'differs in {name}' in refused(*arguments, *changed)


def test_mistakes_are_refused(refused, search, tmp_path):
    said = refused(*search, '--repeats', 5, '--naive', 4)
    assert 'naive loop, 4, which it deals out, but got 5' in said
    config = tmp_path / 'train.py'
    config.write_text('model = dict()\n')
    assert 'needs a search config' in refused(config, 'supernet.pth')
