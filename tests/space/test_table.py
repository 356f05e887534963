"""A cost table is looked up, written, read, and refused when it is none."""

import json

import pytest

from mmcr.errors import UserError
from mmcr.space import Arch, Budget, Choice, SearchSpace
from mmcr.space.table import CostTable

COSTS = {'stage1': {1: 0.1, 2: 0.3}, 'stage2': {1: 1.25, 3: 2}}
CHOICES = (Choice('stage1', (1, 2)), Choice('stage2', (3, 1)))


def table(**more):
    return CostTable(
        **{
            **dict(kind='latency', unit='ms', costs=COSTS, fixed=0.2, shape=(8, 9)),
            **more,
        }
    )


def test_the_fixed_cost_is_counted_once():
    assert table()('stage1', 1) == 0.3  # exactly: sums do not drift
    assert table()('stage2', 1) == 1.25
    assert table().total(Arch(dict(stage2=3, stage1=2))) == 2.5
    space = SearchSpace(CHOICES, table())
    assert space.cost_of(Arch(dict(stage1=2, stage2=3))) == 2.5


def test_a_budget_of_the_whole():
    space = SearchSpace(CHOICES, table(), Budget(1.5, 1.75))
    assert [str(arch) for arch in space] == [
        'stage1=1, stage2=1',
        'stage1=2, stage2=1',
    ]


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


def test_fits():
    table().check_fits(CHOICES)
    table().check_fits((Choice('stage1', (1,)), CHOICES[1]))  # not every value


@pytest.mark.parametrize(
    'choices, message',
    [
        (CHOICES[:1], 'choices of the space, stage1, but it is of stage1, stage2'),
        ((*CHOICES, Choice('stage3', (1,))), 'stage1, stage2, stage3, but'),
        ((CHOICES[0], Choice('stage2', (1, 2, 4))), 'stage2, .* none for 2, 4'),
    ],
)
def test_does_not_fit(choices, message):
    with pytest.raises(UserError, match=message):
        table().check_fits(choices)


@pytest.mark.parametrize(
    'choice, value, message',
    [
        ('stage3', 1, 'no choice stage3; its choices are stage1, stage2'),
        ('stage1', 5, 'stage1=5 has no cost .* one of 1, 2'),
    ],
)
def test_unknown(choice, value, message):
    with pytest.raises(UserError, match=message):
        table()(choice, value)


@pytest.mark.parametrize(
    'more, message',
    [
        (dict(unit=3), 'unit must be a string, but got 3'),
        (dict(costs={}), 'one or more choices .* {}'),
        (dict(costs={'stage1': {}}), "costs of 'stage1' .* {}"),
        (dict(costs={'stage1': [1, 2]}), r'costs of .stage1. .* \[1, 2\]'),
        (dict(costs={'stage1': {1.5: 1}}), 'integers, but got 1.5'),
        (dict(costs={'stage1': {1: 'x'}}), "cost of stage1=1 .* 'x'"),
        (dict(costs={'stage1': {1: -1}}), 'at least 0, but got -1'),
        (dict(costs={'stage1': {1: float('nan')}}), 'finite number.* nan'),
        (dict(costs={'stage1': {1: True}}), 'finite number.* True'),
        (dict(fixed=None), 'fixed cost .rest. must be .* None'),
        (dict(shape=(8,)), r'height and a width .* \(8,\)'),
        (dict(shape=(8, 0)), r'height and a width .* \(8, 0\)'),
        (dict(shape=640), 'height and a width .* 640'),
        (dict(about=[1]), r'about .* \[1\]'),
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
        ('', 'is no cost table'),
        ('{"kind": "latency"', 'is no cost table'),
        ('[1, 2]', r'JSON object with .* but got \[1, 2\]'),
        (json.dumps(_without('rest')), 'rest .a number.*but got .*costs'),
        (json.dumps(dict(table().to_json(), more=1)), "but got .*'more'"),
        (json.dumps(dict(table().to_json(), costs=[1])), r'but costs are \[1\]'),
        (json.dumps(dict(table().to_json(), costs={'a': {'x': 1}})), 'but costs are'),
        (json.dumps(dict(table().to_json(), rest=float('inf'))), '.rest. must be'),
        (json.dumps(dict(table().to_json(), shape=[1, 2, 3])), 'height and a width'),
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
