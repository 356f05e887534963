"""AP against cost, of the paper's networks and of one's own."""

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/zoo_figure.py'


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Types the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
        return runpy.run_path(str(TOOL), run_name='__main__')

    return call


def test_what_the_paper_published(draw, tmp_path):
    tool = draw('--out', 'zoo.svg')
    found = tool['published']('faster_rcnn')
    assert found['mobilenetv2'] == ((121.1, 32.2), (121.4, 33.9))
    assert set(found) == {'mobilenetv2', 'r18', 'r50', 'r101'}
    (axes,) = tool['figure'](found).axes
    baseline, other = axes.lines
    assert list(baseline.get_xdata()) == sorted(baseline.get_xdata())
    assert (other.get_ydata() > baseline.get_ydata()).all()
    assert '<svg' in (tmp_path / 'zoo.svg').read_text()


def test_own_runs(draw, tmp_path, capsys):
    networks = [dict(macs=2e9, points=dict(AP=ap)) for ap in (30.0, 31.5)]
    for name in ('a', 'b'):
        (tmp_path / name / 'result').mkdir(parents=True)
    path = tmp_path / 'a/result/comparison.json'
    path.write_text(json.dumps(dict(networks=networks)))
    tool = draw('--runs', 'a', '--out', 'mine.png')
    assert tool['compared'](['a']) == {'a': ((2.0, 30.0), (2.0, 31.5))}
    for run, reason in (('b', 'there is no b/result'), ('a', 'has none')):
        with pytest.raises(SystemExit):
            draw('--runs', run, '--out', 'other.png')
        assert reason in capsys.readouterr().err
        path.write_text(path.read_text().replace('30.0', 'null'))
