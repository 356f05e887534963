"""The benchmark of search speed, at the smallest size."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from tiny import STAGE, search_cfg, write_checkpoint

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def run(monkeypatch):
    """Calls the benchmark's main in this process: run(config, *arguments)."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def call(*arguments) -> None:
        monkeypatch.setattr(sys, 'argv', ['search_speed.py', *map(str, arguments)])
        runpy.run_path(str(BENCHMARKS / 'search_speed.py'), run_name='__main__')

    return call


def scores_of(result: dict, way: str) -> dict[str, float]:
    runs = result['runs'][way].values()
    return {str(arch): score for run in runs for arch, score in run['scores']}


@pytest.fixture(scope='module')
def search(shapes, quiet_mmdet, tmp_path_factory):
    """A search config and a checkpoint of its supernet."""
    folder = tmp_path_factory.mktemp('search')
    checkpoint = write_checkpoint(folder / 'supernet.pth', STAGE)
    cfg = search_cfg(shapes, folder, None)
    cfg.dump(folder / 'search.py')
    return folder / 'search.py', checkpoint


def test_the_three_ways_are_timed_and_agree(run, search, tmp_path, capsys):
    run(
        *(*search, '--out', tmp_path, '--repeats', 2, '--seeds', 3, '--device', 'cpu'),
        '--plain',
        *('--candidates', 5, '--calibration', 3),
        *('--halving', 'rungs=2', 'eta=2', 'finalists=2'),
    )
    result = json.loads((tmp_path / 'search_speed.json').read_text())
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


def test_the_naive_loop_may_score_fewer(run, search, tmp_path):
    run(
        *(*search, '--out', tmp_path, '--repeats', 1, '--seeds', 1, '--device', 'cpu'),
        *('--candidates', 4, '--naive', 2, '--archval', 4, '--calibration', 2),
    )
    result = json.loads((tmp_path / 'search_speed.json').read_text())
    assert result['setting']['archval_images'] == 4
    assert [len(scores_of(result, way)) for way in 'ab'] == [2, 4]
    assert result['largest_score_difference'] < 1e-9


def test_a_stopped_benchmark_goes_on(run, search, tmp_path, capsys):
    arguments = (
        *(*search, '--out', tmp_path, '--repeats', 1, '--device', 'cpu'),
        *('--candidates', 3, '--naive', 1, '--archval', 4, '--calibration', 2),
    )
    run(*arguments, '--seeds', 1)
    first = json.loads((tmp_path / 'search_speed.json').read_text())
    run(*arguments, '--seeds', 2)
    both = json.loads((tmp_path / 'search_speed.json').read_text())
    new = both['runs']['c'].pop('1')
    assert both['runs'] == first['runs'] and new['seconds'] > 0
    assert len(both['regrets']) == 2
    with pytest.raises(SystemExit):
        run(*arguments, '--archval', 3)
    assert 'differs in archval_images' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(*arguments, '--cfg-options', 'model.test_cfg.rpn.nms_pre=10')
    assert 'differs in cfg_options' in capsys.readouterr().err


def test_repeats_without_naive_candidates_are_refused(run, search, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(*search, '--out', tmp_path, '--repeats', 5, '--naive', 4)
    assert 'naive loop, 4, which it deals out, but got 5' in capsys.readouterr().err


def test_a_config_without_a_search_is_refused(run, shapes, tmp_path, capsys):
    config = tmp_path / 'train.py'
    config.write_text('model = dict()\n')
    with pytest.raises(SystemExit):
        run(config, 'supernet.pth', '--out', tmp_path)
    assert 'needs a search config' in capsys.readouterr().err


def test_timers_count_each_part_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import part_timers

    clock = [0.0]
    monkeypatch.setattr(part_timers.time, 'perf_counter', lambda: clock[0])

    class Work:
        def load(self):
            clock[0] += 1

        def heads(self):
            clock[0] += 10
            self.load()

        def calibrate(self):
            clock[0] += 100
            self.heads()

        def paths(self):
            for _ in range(2):
                clock[0] += 1000
                yield

    work = Work()
    timers = part_timers.PartTimers()
    for name, part in dict(
        load='loading', heads='heads', calibrate='calibration', paths='backbone'
    ).items():
        timers.watch(Work, name, part)
    for _ in work.paths():
        work.heads()
    work.calibrate()
    assert timers.seconds == dict(backbone=2000, heads=20, loading=2, calibration=111)
    timers.close()
    work.heads()
    assert timers.seconds['heads'] == 20
