"""The benchmark of deployed networks, at the smallest size."""

import importlib
import json
import sys

from scripts import BENCHMARKS


def test_ratios_are_those_of_a_round(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module('deployed_speed')
    small = {
        name: arch.replace('r50', 'r18') for name, arch in benchmark.NETWORKS.items()
    }
    monkeypatch.setattr(benchmark, 'NETWORKS', small)
    given = '--out', tmp_path, '--runtime', 'torch', '--shape', 32, '--repeats', 3
    monkeypatch.setattr(sys, 'argv', ['deployed_speed.py', *map(str, given)])
    benchmark.main()
    said = capsys.readouterr().out
    result = json.loads((tmp_path / 'deployed_speed.json').read_text())['torch']
    plain, stages, both = result['seconds'].values()
    low, middle, high = (
        f'{r:.2f}' for r in sorted(a / b for a, b in zip(stages, plain))
    )
    assert f'| {middle} ({low} to {high}) |' in said
    assert len(both) == 3 and result['about']['runtime'] == 'torch'
