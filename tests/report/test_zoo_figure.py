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


def test_top1(draw, tmp_path, capsys):
    tool = draw('--top1', str(TOOL.parents[2] / 'docs/top1.csv'), '--out', 'top1.svg')
    rows = [
        {'name': 'a', 'top-1': 70, 'AP': 30.5},
        {'name': 'a', 'top-1': 71, 'AP': 31},
    ]
    (tmp_path / 'mine.json').write_text(json.dumps(rows))
    table = tool['table_of']('mine.json')
    assert table == {'': [('a', (70, 30.5)), ('a', (71, 31))]}
    (axes,) = tool['top1_figure'](table).axes
    assert [text.get_text() for text in axes.texts] == ['a', 'a']
    assert list(axes.lines[0].get_xdata()) == [70, 71] and axes.get_legend() is None
    for text, reason in (
        ('name,top-1,AP\na,70,30\nb,71\n', "row 2 of bad.csv is {'name': 'b'"),
        ('name,top-1,AP\na,70,nan\n', 'from 0 to 100, but row 1'),
        ('name,top-1,AP\n', 'bad.csv has none'),
    ):
        (tmp_path / 'bad.csv').write_text(text)
        with pytest.raises(SystemExit):
            draw('--top1', 'bad.csv', '--out', 'other.png')
        assert reason in capsys.readouterr().err
