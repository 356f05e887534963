"""The benchmark of supernet training steps, at the smallest size."""

import json
import sys
from functools import partial

import pytest
from scripts import BENCHMARKS, run_script

run = partial(run_script, BENCHMARKS / 'supernet_step.py')
SMALL = ('--size', 64, 64, '--batch-size', 1, '--device', 'cpu')

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def test_steps_of_a_path_in_the_supernet_and_alone(tmp_path):
    counts = ('--nets', 'mobilenetv2-operation', '--paths', 1, '--repeats', 2)
    done = run('step', '--out', tmp_path, *counts, *SMALL)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'supernet_step.json').read_text())
    (row,) = result['rows']
    (seconds,) = row['seconds']
    assert [len(seconds[way]) for way in ('supernet', 'fixed')] == [2, 2]
    assert min(seconds['supernet'] + seconds['fixed']) > 0
    (pair,) = row['step_mib']
    # gradients of the head's first layer alone are 12544 x 1024 floats; the path is
    # the same, so that only what the allocator rounds differs
    assert min(pair) > 49 and max(pair) < 1.1 * min(pair)
    table = (tmp_path / 'supernet_step.md').read_text()
    assert '| mobilenetv2-operation |' in table and table in done.stdout


def test_memory_of_both_ways_to_share(tmp_path):
    which = ('--nets', 'mobilenetv2-stage', '--path', 'deepest')
    done = run('memory', '--out', tmp_path, *which, *SMALL)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'supernet_memory.json').read_text())['rows']
    assert len(rows) == 4
    assert [row['with_cp'] for row in rows] == [False, True] * 2
    branch, _, prefix, _ = rows
    for figure in ('parameters', 'weights_mib', 'state_mib'):
        assert prefix[figure] < branch[figure]
    # one path's momentum is the same in both, and never that of all
    assert prefix['path_state_mib'] == branch['path_state_mib'] < branch['state_mib']
    table = (tmp_path / 'supernet_memory.md').read_text()
    assert '| mobilenetv2-stage | prefix | yes | [4, 5, 7, 6, 6] |' in table


def test_a_step_at_full_width_and_the_plain_detectors(tmp_path):
    which = ('--path', 'baseline', '--repeats', 1)
    done = run('warm', '--out', tmp_path, *which, *SMALL)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'supernet_warm.json').read_text())['rows']
    assert [(row['net'], row['with_cp']) for row in rows] == [
        ('plain', False),
        ('baseline', False),
        ('baseline', True),
    ]
    plain, *supernets = rows
    assert plain['ratio'] == 1 and plain['ratios'] == [1]
    # of weights and momentum alone it has more than twice as much
    assert all(row['ratio'] > 2 and row['ratios'][0] > 0 for row in supernets)
    assert '| baseline | yes |' in (tmp_path / 'supernet_warm.md').read_text()


def test_mixed_precision_on_a_cpu_is_refused(tmp_path):
    done = run('step', '--out', tmp_path, '--amp', *SMALL)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: --amp must come with')
