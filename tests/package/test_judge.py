"""The benchmark that judges named architectures: what it trains and what it says."""

import importlib
import json
import sys

import pytest
from config_files import CONFIGS
from scripts import BENCHMARKS

from mmcr.registry import HOOKS
from mmcr.workflow.contests.contest import Contest

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
APS = {'2-2-2-2': (30.0, 31.0), '3-1-2-2': (32.0, 32.5), '1-3-2-2': (29.0, 31.0)}


@pytest.fixture
def judge(monkeypatch, tmp_path):
    """Calls its main with trainings that are made up; returns those it asked for."""
    ran = []

    def run(contest, pairs, lock):
        ran.extend(pairs)
        for pair in pairs:
            cfg = contest.config(*pair)
            hooks = [HOOKS.build(hook) for hook in cfg.custom_hooks]
            assert list(hooks[0].backbone['stage_blocks']) == [4, 4, 4, 4]

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module('judge')
    monkeypatch.setattr(Contest, 'run', run)
    monkeypatch.setattr(Contest, 'ap', lambda self, name, seed: APS[name][seed - 4])

    def call(*archs):
        config = CONFIGS / 'demo/shapes.py'
        given = config, '--arch', *archs, '--seeds', 4, 5
        given += '--large', '4-4-4-4', '--out', tmp_path / 'out'
        monkeypatch.setattr(sys, 'argv', ['judge.py', *map(str, given)])
        benchmark.main()
        return ran

    return call


def test_each_meets_the_baseline_under_every_seed(judge, tmp_path):
    ran = judge('3-1-2-2', '1-3-2-2')
    assert ran == [(name, seed) for seed in (4, 5) for name in APS]
    text = (tmp_path / 'out/judge.md').read_text()
    assert '| 2-2-2-2 | 1.000 | 1.000 | 30.00 | 31.00 |' in text
    assert '3-1-2-2 is ahead' not in text  # two seeds say little
    assert 'By seed: +2.00, +1.50.' in text and 'By seed: -1.00, +0.00.' in text
    record = json.loads((tmp_path / 'out/judge.json').read_text())
    assert record['aps'] == {name: list(row) for name, row in APS.items()}
    assert record['seeds'] == [4, 5]


@pytest.mark.parametrize(
    'arch, words',
    [('3-2-2', 'has 4 stages'), ('3-2-x', 'as 7-5-2-2'), ('99-2-2-2', '99')],
)
def test_other_architectures_are_refused(judge, capsys, arch, words):
    with pytest.raises(SystemExit):
        judge(arch)
    assert words in capsys.readouterr().err
