"""The benchmark of a search's memory, at the smallest size."""

import json
import sys
from functools import partial

import pytest
from scripts import BENCHMARKS, run_script

run = partial(run_script, BENCHMARKS / 'search_memory.py')

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def test_measures_every_group_size(tmp_path):
    arguments = ['--candidates', 4, '--images', 8, '--group-size', 4, 2]
    done = run('--out', tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'search_memory.json').read_text())
    assert [row['group_size'] for row in result['rows']] == [4, 2]
    assert min(row['peak_growth_mib'] for row in result['rows']) >= 0
    table = (tmp_path / 'search_memory.md').read_text()
    assert '| 4 | 4 |' in table and table in done.stdout


def test_candidates_that_there_are_not_are_refused(tmp_path):
    done = run('--out', tmp_path, '--candidates', 375)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: --candidates must be from 1')
