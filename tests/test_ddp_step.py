"""The benchmark of training steps on several processes, at the smallest size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / 'benchmarks/ddp_step.py'


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_step_beside_that_of_ddp(tmp_path):
    small = ('--size', 64, 64, '--paths', 1, '--repeats', 2)
    which = ('--net', 'mobilenetv2-stage', '--processes', 2, '--ways', 'active-path')
    done = run('--out', tmp_path, *which, *small)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / 'ddp_step.json').read_text())['rows']
    active = sum(row['active_bytes'])
    assert active <= sum(row['sent_bytes']['active-path']) <= 1.02 * active
    assert row['all_bytes'] <= sum(row['sent_bytes']['ddp']) <= 1.02 * row['all_bytes']
    assert active < row['all_bytes']
    for seconds in row['seconds'].values():
        assert len(seconds) == 2 and min(seconds) > 0
    table = (tmp_path / 'ddp_step.md').read_text()
    assert '| 2 | active-path |' in table and table in done.stdout


def test_one_process_is_refused(tmp_path):
    done = run('--out', tmp_path, '--processes', 1)
    assert done.returncode == 1
    assert '--processes at least 2' in done.stderr.splitlines()[-1]
