"""A cost table is looked up, written, read, and refused when it is none."""

import json

import pytest

from mmcr.errors import UserError
from mmcr.space import Arch, Budget, Choice, SearchSpace
from mmcr.space.table import CostTable

COSTS = {'stage1': {1: 0.1, 2: 0.3}, 'stage2': {1: 1.25, 3: 2}}
CHOICES = (Choice('stage1', (1, 2)), Choice('stage2', (3, 1)))


TABLE = dict(kind='latency', unit='ms', costs=COSTS, fixed=0.2, shape=(8, 9))


def table(**more):
    return CostTable(**{**TABLE, **more})


def test_the_fixed_cost_is_counted_once():
    assert table()('stage1', 1) == 0.3  # exactly: sums do not drift
    assert table()('stage2', 1) == 1.25
    assert table().total(Arch(dict(stage2=3, stage1=2))) == 2.5
    space = SearchSpace(CHOICES, table())
    assert space.cost_of(Arch(dict(stage1=2, stage2=3))) == 2.5


def test_a_budget_of_the_whole():
    space = SearchSpace(CHOICES, table(), Budget(1.5, 1.75))
    names = ['stage1=1, stage2=1', 'stage1=2, stage2=1']
    assert [str(arch) for arch in space] == names


def test_round_trip(tmp_path):
    path = tmp_path / 'table.json'
    mine = table(about=dict(device='a', versions=dict(torch='2'), check=None))
    mine.write(path)
    assert CostTable.read(path) == mine
    assert CostTable.from_json(json.loads(json.dumps(mine.to_json()))) == mine
    plain = table(kind='params', shape=None, fixed=0)
    assert CostTable.from_json(plain.to_json()) == plain


def test_constant():
    assert not table().is_constant
    assert table(costs={'a': {1: 2, 2: 2}, 'b': {1: 3, 5: 3.0}}).is_constant


@pytest.mark.parametrize(
    'choices, message',
    [
        (CHOICES[:1], r'space with .*, stage1 .1, 2., but it holds stage1 .1, 2., st'),
        ((*CHOICES, Choice('stage3', (1,))), 'stage3 .1., but'),
        ((CHOICES[0], Choice('stage2', (1, 4))), 'stage2 .1, 4., .* stage2 .1, 3.$'),
    ],
)
def test_fits(choices, message):
    table().check_fits(CHOICES)
    table().check_fits((Choice('stage1', (1,)), CHOICES[1]))  # not every value
    with pytest.raises(UserError, match=message):
        table().check_fits(choices)


@pytest.mark.parametrize('item', [('stage3', 1), ('stage1', 5)])
def test_unknown(item):
    message = '{}={} has no cost .* those of stage1 .1, 2., stage2 .1, 3.'
    with pytest.raises(UserError, match=message.format(*item)):
        table()(*item)


@pytest.mark.parametrize(
    'more, message',
    [
        (dict(unit=3), 'a cost table .* but got 3 for unit'),
        (dict(costs={}), 'but got {} for costs'),
        (dict(costs={'stage1': {}}), 'but got {} for costs of stage1'),
        (dict(costs={'stage1': [1, 2]}), r'got \[1, 2\] for costs of stage1'),
        (dict(costs={'stage1': {1.5: 1}}), 'values integers.* the cost of stage1=1.5'),
        (dict(costs={'stage1': {1: 'x'}}), "'x' for the cost of stage1=1"),
        (dict(costs={'stage1': {1: -1}}), 'at least 0.*, but got -1'),
        (dict(costs={'stage1': {1: float('nan')}}), 'finite .* nan'),
        (dict(costs={'stage1': {1: True}}), 'True for the cost'),
        (dict(fixed=None), 'but got None for rest'),
        (dict(shape=(8,)), r'height and a width .* \(8,\)'),
        (dict(shape=640), 'height and a width .* 640'),
        (dict(about=[1]), r'about .an object., but got \[1\] for about'),
    ],
)
def test_bad_arguments(more, message):
    with pytest.raises(UserError, match=message):
        table(**more)


def _without(name):
    return {k: v for k, v in table().to_json().items() if k != name}


@pytest.mark.parametrize(
    'text, message',
    [
        ('{"kind": "latency"', 'is no cost table'),
        ('[1, 2]', r'JSON object with .* but got \[1, 2\]'),
        (json.dumps(_without('rest')), 'rest .a cost.*but got .*costs'),
        (json.dumps(dict(table().to_json(), more=1)), "but got .*'more'"),
        (json.dumps(dict(table().to_json(), costs=[1])), r'got \[1\] for costs'),
        (json.dumps(dict(table().to_json(), costs={'a': {'x': 1}})), "cost of a='x'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / 'table.json'
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        CostTable.read(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match='file that can be read.*nothing.json'):
        CostTable.read(tmp_path / 'nothing.json')
    with pytest.raises(UserError, match='file that can be read'):
        CostTable.read(tmp_path)
    (tmp_path / 'binary').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='is no cost table'):
        CostTable.read(tmp_path / 'binary')
    with pytest.raises(UserError, match='can be written'):
        table().write(tmp_path / 'no folder/table.json')
