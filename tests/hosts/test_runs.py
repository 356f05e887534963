"""Hosts of mmdet's own, from their config to a verdict."""

import json
import runpy
import sys

import numpy as np
import pytest
from in_process import TOOLS, in_this_process

from mmcr.scoring.coco_metric import UnroundedCocoMetric
from mmcr.workflow import reallocation, settings
from mmcr.workflow.estimate import Estimate
from mmcr.workflow.steps import StepRunner

from .shrunk import run_cfg
from .table import RUN_BY_CI, RUNS

pytestmark = [pytest.mark.usefixtures('quiet_mmdet'), pytest.mark.slow]


@pytest.fixture(autouse=True)
def _telling_scores(monkeypatch):
    """Networks so little trained find nothing: what they are sure of counts, too."""
    computed = UnroundedCocoMetric.compute_metrics

    def compute(metric, results):
        sure = np.concatenate([found['scores'] for _, found in results])
        metrics = computed(metric, results)
        return {**metrics, 'bbox_mAP': metrics['bbox_mAP'] + 1e-3 * float(sure.mean())}

    monkeypatch.setattr(UnroundedCocoMetric, 'compute_metrics', compute)


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.long] * (name != RUN_BY_CI))
        for name in RUNS
    ],
)
def test_a_host_is_reallocated(name, shapes, tmp_path, monkeypatch):
    """With one seed that judges; steps run in this process."""
    if 'convnext' in name:
        pytest.importorskip('mmpretrain.models', reason='mmpretrain is optional')
    monkeypatch.setattr(settings, 'LEAST', 2)
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    monkeypatch.setattr(reallocation, 'estimate', lambda path: Estimate(1, 2, 1, 1, 1))
    config = tmp_path / 'host.py'
    run_cfg(name, shapes).dump(config)
    tool, work = str(TOOLS / 'reallocate.py'), tmp_path / 'work'
    monkeypatch.setattr(sys, 'argv', [tool, str(config), '--work-dir', str(work)])
    runpy.run_path(tool, run_name='__main__')
    record = json.loads((work / 'result/comparison.json').read_text())
    assert record['kind'] in ('ahead', 'behind', 'undecided')
    baseline, found = record['networks']
    assert found['macs'] == pytest.approx(baseline['macs'], rel=0.05)
    assert found['stage_blocks'] != baseline['stage_blocks']
    assert (work / 'result/best.pth').is_file()
