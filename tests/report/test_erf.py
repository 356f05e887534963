"""Effective receptive fields, against fields that are known."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmcr.errors import UserError
from mmcr.models.weights.checkpoint import write_weights
from mmcr.report.erf import Field, fields_table, receptive_fields

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/erf.py'


class Blur(nn.Module):
    """Levels of stride 8 and 64; a centre of the first sees a square around it."""

    def __init__(self, side):
        super().__init__()
        self.net = nn.Conv2d(3, 2, side, stride=8, padding=side // 2, bias=False)
        nn.init.constant_(self.net.weight, -1.0)

    def extract_feat(self, images):
        level = self.net(images)
        return level, [nn.functional.max_pool2d(level, 8)]  # in any nesting


@pytest.mark.parametrize('side', [1, 7])
def test_the_field_of_a_convolution_is_its_kernel(side):
    batches = [torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)]
    (field,) = receptive_fields(Blur(side), batches)
    assert (field.level, field.stride, field.box) == ('P3', 8, 64)
    assert field.centre == (32, 32)
    reach = side // 2
    wanted = np.zeros((64, 64))
    wanted[32 - reach : 33 + reach, 32 - reach : 33 + reach] = side**-2
    assert np.allclose(field.gradient, wanted)
    assert field.side(0.5) == pytest.approx(np.sqrt(np.ceil(side**2 / 2)))
    assert field.within_box() == pytest.approx(1)


def test_the_share_inside_of_the_anchor():
    gradient = np.full((128, 256), 1 / (128 * 256))
    assert Field('P3', 8, gradient, (64, 128)).within_box() == pytest.approx(
        64**2 / (128 * 256)
    )
    at_an_edge = Field('P3', 8, gradient, (0, 128))
    assert at_an_edge.within_box() == pytest.approx(32 * 64 / (128 * 256))
    wide = Field(
        'P5', 32, gradient, (64, 128)
    )  # whose anchor is as large as the image is wide
    assert wide.within_box() == pytest.approx(1)
    assert wide.side(0.95) == pytest.approx(np.sqrt(0.95 * 128 * 256), rel=1e-3)
    assert '| a | P5 | 256 | 128 | 176 | 100% |' in fields_table({'a': [wide]})


def test_levels_that_tell_nothing_are_refused():
    dead = Blur(3)
    nn.init.zeros_(dead.net.weight)
    with pytest.raises(UserError, match='centre of P3 must depend.*trained'):
        receptive_fields(dead, [torch.randn(1, 3, 64, 64)])
    dead.extract_feat = lambda images: [images]
    with pytest.raises(UserError, match=r'stride \[8, 16, 32\].*none of these'):
        receptive_fields(dead, [torch.randn(1, 3, 64, 64)])


CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=18, init_cfg=None, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)
"""


def test_the_tool(tmp_path, monkeypatch, capsys):
    for name, more in (
        ('mine', ''),
        ('deep', "model['backbone']['depth'] = 34\n"),
        ('blind', 'test_dataloader = test_cfg = test_evaluator = None\n'),
    ):
        (tmp_path / f'{name}.py').write_text(CONFIG + more)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['erf.py', *arguments])
        runpy.run_path(str(TOOL), run_name='__main__')

    small = '--shape', '128', '--count', '2', '--out', 'out'
    run('mine.py', '--against', 'deep.py', *small)
    record = json.loads((tmp_path / 'out/erf.json').read_text())
    levels = [(f['level'], f['anchor']) for f in record['mine']]
    assert levels == [('P3', 64), ('P4', 128), ('P5', 256)]
    sides = {name: fields[0]['sides']['0.95'] for name, fields in record.items()}
    assert 0 < sides['mine'] < sides['deep'] < 128
    assert (tmp_path / 'out/erf.png').stat().st_size > 10_000
    assert 'Written to out.' in capsys.readouterr().out
    for arguments, said in (
        (('mine.py', *small), 'must name a new file'),
        (('blind.py', '--images', 'test', '--out', 'new'), 'takes those of test_data'),
    ):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert said in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()
    detector = MODELS.build(Config.fromfile('mine.py').model)
    weights = {f'module.{name}': w for name, w in detector.state_dict().items()}
    weights['module.data_preprocessor.mean'] = torch.zeros(3, 1, 1)  # of before
    write_weights(tmp_path / 'best.pth', weights)
    run('mine.py', 'best.pth', '--shape', '128', '--count', '1', '--out', 'trained')
    assert (tmp_path / 'trained/erf.md').is_file()
