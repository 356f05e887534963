"""The benchmark of repeated runs: what it writes about them."""

import importlib
import json
import sys

from scripts import BENCHMARKS


def test_a_record_says_which_detector(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module('repeated_runs')
    monkeypatch.setattr(benchmark, 'run', lambda args, seed: dict(seed=seed))
    monkeypatch.setattr(benchmark, 'table', lambda runs: '')
    given = '--config', tmp_path / 'mine.py', '--seeds', 1, 2, '--out', tmp_path
    monkeypatch.setattr(sys, 'argv', ['repeated_runs.py', *map(str, given)])
    benchmark.main()
    record = json.loads((tmp_path / 'repeated_runs.json').read_text())
    assert record['config'] == 'mine.py'
    assert [run['seed'] for run in record['runs']] == [1, 2]
