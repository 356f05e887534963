"""The benchmark of training steps on several processes, at the smallest size."""

import json
import sys
from functools import partial

import pytest
from scripts import BENCHMARKS, run_script

run = partial(run_script, BENCHMARKS / 'ddp_step.py')


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_step_beside_that_of_ddp(tmp_path):
    small = ('--size', 64, 64, '--paths', 1, '--repeats', 2)
    which = ('--net', 'mobilenetv2-stage', '--processes', 2, '--ways', 'active-each')
    done = run('--out', tmp_path, *which, *small)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / 'ddp_step.json').read_text())['rows']
    active = sum(row['active_bytes'])
    assert active <= sum(row['sent_bytes']['active-each']) <= 1.02 * active
    assert row['all_bytes'] <= sum(row['sent_bytes']['ddp']) <= 1.02 * row['all_bytes']
    assert active < row['all_bytes']
    for seconds in row['seconds'].values():
        assert len(seconds) == 2 and min(seconds) > 0
    table = (tmp_path / 'ddp_step.md').read_text()
    assert '| 2 | active-each |' in table and table in done.stdout


def test_one_process_is_refused(tmp_path):
    done = run('--out', tmp_path, '--processes', 1)
    assert done.returncode == 1
    assert '--processes at least 2' in done.stderr.splitlines()[-1]
