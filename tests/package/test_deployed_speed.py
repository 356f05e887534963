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


def test_the_load_is_asked_for_before_all(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module('deployed_speed')
    done = []

    def conditions(device, repeats, runtime, clock):
        done.append('load')
        return dict(runtime=runtime, rounds=repeats, clock=clock, warnings=[])

    def measure(about, shape):
        done.append(about['runtime'])
        seconds = dict.fromkeys(benchmark.NETWORKS, [1.0])
        return dict(about=dict(about, spread_percent=0), seconds=seconds)

    monkeypatch.setattr(benchmark, 'conditions', conditions)
    monkeypatch.setattr(benchmark, 'measure', measure)
    monkeypatch.setattr(benchmark, 'check_runtime', lambda runtime: None)
    monkeypatch.setattr(sys, 'argv', ['deployed_speed.py', '--out', str(tmp_path)])
    benchmark.main()
    assert done == ['load'] * 3 + ['torch', 'onnxruntime', 'openvino']
