"""The benchmark of a GPU at its smallest size, on a CPU."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
from in_process import in_this_process
from scripts import BENCHMARKS

from mmcr.errors import UserError
from mmcr.workflow.steps import StepRunner

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture
def gpu(monkeypatch):
    """The module; what it calls runs in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module('gpu')
    monkeypatch.setattr(module, 'DEVICE', 'cpu')

    def call(script, *arguments, processes=0):
        if processes:
            return started(script, *arguments, processes=processes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
            runpy.run_path(str(script), run_name='__main__')

    started = module.call
    monkeypatch.setattr(module, 'call', call)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    return module


def run(gpu, monkeypatch, out, *parts):
    argv = ['gpu.py', '--out', str(out), '--smallest', '--parts', *parts]
    monkeypatch.setattr(sys, 'argv', argv)
    gpu.main()
    return (out / 'gpu.md').read_text()


@pytest.mark.slow
def test_steps_searches_and_a_process_group(gpu, monkeypatch, tmp_path):
    text = run(gpu, monkeypatch, tmp_path, 'step', 'search', 'nccl')
    assert '| float32 | with_cp |' in text and 'AMP' not in text
    assert '| (a) naive loop |' in text
    assert '| gloo |' in text and 'networks differ by 0 at the most' in text
    assert 'Failed' not in text


@pytest.mark.slow
@pytest.mark.long
def test_warm_paths(gpu, monkeypatch, tmp_path):
    text = run(gpu, monkeypatch, tmp_path, 'warm')
    assert 'Failed' not in text
    record = json.loads((tmp_path / 'warm/warm.json').read_text())
    assert len(record['archs']) == len(record['rows']) == gpu.SMALLEST.compared
    assert record['archs'][0] == '2-2-2-2'
    columns = {'score start', 'extracted', 'tuned', 'grown', 'alone'}
    assert columns <= set(record['rows'][0])
    assert len(record['ahead']['grown']) == len(record['rows']) - 1
    assert set(record['baseline']) == {'given', 'longer'}
    assert min(record['trainings'].values()) > 0


def test_a_part_that_fails_says_so_and_the_others_run(
    gpu, monkeypatch, tmp_path, capsys
):
    def broken(out, sizes):
        raise UserError('no such device')

    monkeypatch.setattr(gpu, 'PARTS', dict(step=broken, warm=lambda *args: 'Fine.'))
    with pytest.raises(SystemExit):
        run(gpu, monkeypatch, tmp_path, 'step', 'warm')
    text = Path(tmp_path / 'gpu.md').read_text()
    assert 'Failed: UserError: no such device' in text and 'Fine.' in text
    assert 'step failed' in capsys.readouterr().err
