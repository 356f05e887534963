"""The export of a trained detector: its files, its score, its messages."""

import json
import runpy
import sys

import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from scripts import ROOT
from tiny import build_detector, loader_cfg, metric_cfg, runner_cfg

from mmcr.data import CLASSES
from mmcr.errors import UserError
from mmcr.files import file_digest
from mmcr.models import runtimes
from mmcr.models.deployed import deployed
from mmcr.models.weights.checkpoint import write_weights
from mmcr.workflow import deploy
from mmcr.workflow.deploy import loaded

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

BACKBONE = dict(stage_blocks=(1, 1, 1, 1))


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """A folder with config.py and best.pth of a detector."""
    folder = tmp_path_factory.mktemp('trained')
    test = dict(
        test_cfg=dict(type='TestLoop'),
        test_dataloader=loader_cfg(shapes, 'archval'),
        test_evaluator=metric_cfg(shapes),
    )
    cfg = runner_cfg(folder, BACKBONE, **test)
    cfg.train_dataloader = loader_cfg(shapes, 'archtrain')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
    cfg.visualizer = dict(type='DetLocalVisualizer', name='painter')
    cfg.dump(folder / 'config.py')
    meta = dict(dataset_meta=dict(classes=CLASSES))
    state = build_detector(BACKBONE).state_dict()
    state['data_preprocessor.mean'] = torch.zeros(3, 1, 1)  # as published ones have
    write_weights(folder / 'best.pth', state, **meta)
    return folder


@pytest.fixture
def run(trained, monkeypatch, capsys):
    """Calls the tool in this process; returns what it printed, or its message."""

    def call(*arguments, checkpoint='best.pth', fails=False) -> str:
        given = trained / 'config.py', trained / checkpoint, *arguments
        monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, given)])
        tool = str(ROOT / 'tools/deployment/export.py')
        if not fails:
            runpy.run_path(tool, run_name='__main__')
            return capsys.readouterr().out
        with pytest.raises(SystemExit):
            runpy.run_path(tool, run_name='__main__')
        return capsys.readouterr().err

    return call


def test_an_export_scores_as_torch_does(run, trained, tmp_path):
    for package in ('onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    out = tmp_path / 'found.onnx'
    said = run('--to', 'onnx', '--out', out, '--images', '5')
    record = json.loads((tmp_path / 'found.onnx.json').read_text())
    score = record['score']
    assert record['files'] == dict(network=out.name, bbox_head='found.bbox_head.onnx')
    assert record['images'] == 5 and record['set'] == 'test'
    assert record['checkpoint'] == file_digest(trained / 'best.pth')
    given = record['input']
    assert given['order'] == 'RGB' and given['pad_value'] == 0
    assert given['pipeline'][0]['type'] == 'LoadImageFromFile'
    assert score['metric'] == 'coco/bbox_mAP' and score['torch'] > 0.01
    assert abs(score['difference']) < 1e-3
    assert f'torch {score["torch"]:.4f}' in said and 'difference' in said
    again = run('--to', 'onnx', '--out', out, fails=True)
    assert 'must name a new file' in again

    def found(detector):
        image = next((trained.parent).rglob('archval/*.png'))
        return inference_detector(detector, str(image)).pred_instances

    given = str(trained / 'config.py'), str(trained / 'best.pth')
    detector = init_detector(*given, device='cpu')
    theirs = found(detector)
    ours = found(deployed(detector, tmp_path / 'found.onnx.json'))
    torch.testing.assert_close(ours.bboxes, theirs.bboxes, atol=1e-2, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)


def test_a_test_takes_any_set_and_nothing_that_writes(trained):
    cfg = Config.fromfile(trained / 'config.py')
    whole = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[whole])
    cfg.visualizer = dict(type='NoSuchVisualizer')
    cfg.default_hooks = dict(visualization=dict(type='NoSuchHook'))
    with loaded(cfg, str(trained / 'best.pth'), 3) as runner:
        data = runner.test_dataloader.dataset
        runner.test()
        (metric,) = runner.test_evaluator.metrics
        assert len(runner.test_dataloader.batch_sampler.sampler) == 3 < len(data)
        assert metric.img_ids == [data.get_data_info(i)['img_id'] for i in range(3)]


@pytest.fixture
def runtime(monkeypatch):
    """No package is needed, and what an export writes is text."""

    def write(parts, files, folder, precision, seen):
        seen_by.append(seen)
        for name in files.values():
            (folder / name).write_text(precision)

    seen_by = []
    monkeypatch.setattr(deploy, '_write', write)
    for name in 'check_runtime', 'runtime_versions':
        monkeypatch.setattr(deploy, name, lambda *given: {})
    return seen_by


def test_a_scoring_that_fails_leaves_nothing(runtime, trained, tmp_path, monkeypatch):
    def session(path):
        assert path.read_text() == 'fp32'
        raise KeyboardInterrupt

    cfg = Config.fromfile(trained / 'config.py')
    monkeypatch.setattr(deploy, 'Session', session)
    given = str(trained / 'best.pth'), tmp_path / 'x.onnx', 'fp32', 1
    with pytest.raises(KeyboardInterrupt):
        deploy.export(cfg, *given)
    assert list(tmp_path.iterdir()) == []


def test_ranges_come_from_a_draw_of_training_images(
    runtime, trained, tmp_path, monkeypatch
):
    cfg = Config.fromfile(trained / 'config.py')
    drawn, build = [], deploy.build_loader

    def noted(*given):
        drawn.append(build(*given))
        return drawn[-1]

    monkeypatch.setattr(deploy, 'build_loader', noted)
    monkeypatch.setattr(deploy, 'Session', lambda path: None)
    monkeypatch.setattr(deploy, 'run_by', lambda *given: None)
    checkpoint = str(trained / 'best.pth')
    record = deploy.export(cfg, checkpoint, tmp_path / 'x.onnx', 'int8', 1, 3)
    assert record['precision'] == 'int8' and len(runtime[0]['network']) == 3
    assert len(set(drawn[0].sampler)) == 3 and set(drawn[0].sampler) != {0, 1, 2}
    assert 'archtrain' in drawn[0].dataset.get_data_info(0)['img_path']
    cfg.train_dataloader = None
    with pytest.raises(UserError, match='Add one, or take another --precision'):
        deploy.export(cfg, checkpoint, tmp_path / 'y.onnx', 'int8', 1, 3)


@pytest.mark.parametrize(
    'load, normalize, is_swapped, order',
    [
        (dict(), False, False, 'BGR'),
        (dict(), False, True, 'RGB'),
        (dict(), True, True, 'BGR'),
        (dict(imdecode_backend='tifffile'), False, True, 'BGR'),
        (dict(channel_order='rgb'), False, False, 'RGB'),
    ],
)
def test_order_of_channels(load, normalize, is_swapped, order):
    steps = [dict(type='mmdet.LoadImageFromFile', **load)]
    steps += [dict(type='Normalize', mean=[0], std=[1])] * normalize
    assert deploy.channel_order(steps, is_swapped) == order


@pytest.mark.slow
def test_integers_take_their_ranges_from_training_images(run, tmp_path):
    for package in ('onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    given = '--precision', 'int8', '--calibration-images', '3'
    run('--to', 'openvino', '--out', tmp_path / 'found.xml', *given)
    record = json.loads((tmp_path / 'found.xml.json').read_text())
    assert record['precision'] == 'int8' and record['runtime'] == 'openvino'
    assert 0 < abs(record['score']['difference']) < 0.1
    assert {'found.xml', 'found.bin'} <= {p.name for p in tmp_path.iterdir()}


def test_mmdets_inferencer_takes_a_result(trained, tmp_path):
    given = str(trained / 'config.py'), str(trained / 'best.pth')
    image = next(trained.parent.rglob('archval/*.png'))
    inferencer = DetInferencer(*given, device='cpu', show_progress=False)
    found = inferencer(str(image), out_dir=str(tmp_path))['predictions'][0]
    assert inferencer.model.dataset_meta['classes'] == CLASSES
    assert len(found['bboxes']) == len(found['scores']) > 0
    assert (tmp_path / 'vis' / image.name).is_file()


def test_mistakes_are_one_message(run, trained, tmp_path, monkeypatch):
    assert 'there is no file' in run('--to', 'onnx', checkpoint='no.pth', fails=True)
    said = run('--to', 'onnx', '--out', tmp_path / 'found.xml', fails=True)
    assert 'must end in .onnx' in said
    assert '--images must be' in run('--to', 'onnx', '--images', '0', fails=True)
    monkeypatch.setattr(runtimes, 'find_spec', lambda name: None)
    assert 'pip install onnx' in run('--to', 'openvino', fails=True)


def test_a_checkpoint_of_another_detector(run, trained, tmp_path):
    cfg = Config.fromfile(trained / 'config.py')
    weights = build_detector(dict(stage_blocks=(1, 2, 1, 1))).state_dict()
    write_weights(trained / 'deeper.pth', weights)
    with pytest.raises(UserError, match='layer2.1.* is unknown'):
        with loaded(cfg, str(trained / 'deeper.pth'), 1):
            pass
    del weights['roi_head.bbox_head.fc_cls.weight']
    write_weights(trained / 'other.pth', weights)
    assert cfg.model.backbone.stage_blocks == (1, 1, 1, 1)
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    given = '--to', 'onnx', '--out', tmp_path / 'x.onnx'
    said = run(*given, checkpoint='other.pth', fails=True)
    assert 'fc_cls' in said and list(tmp_path.iterdir()) == []
