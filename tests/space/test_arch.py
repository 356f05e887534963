import json
import pickle

import pytest

from mmcr.space import Arch, ArchError


def test_equality_and_hash_ignore_the_order():
    one, other = Arch({'a': 1, 'b': 2}), Arch({'b': 2, 'a': 1})
    assert one == other
    assert len({one, other}) == 1
    assert one != Arch({'a': 1, 'b': 3})
    assert list(other) == ['b', 'a']
    assert str(other) == 'b=2, a=1'


def test_cannot_be_changed():
    arch = Arch({'a': 1})
    with pytest.raises(TypeError):
        arch['a'] = 2
    assert arch.updated({'a': 2, 'b': 3}) == {'a': 2, 'b': 3}
    assert arch == {'a': 1}


def test_does_not_share_the_dict_it_is_made_of():
    values = {'a': 1}
    arch = Arch(values)
    values['a'] = 2
    arch.to_json()['a'] = 3
    assert arch['a'] == 1


def test_json_and_pickle_round_trip():
    arch = Arch({'stage1.0': 3, 'stage1.1': 1})
    assert Arch.from_json(json.loads(json.dumps(arch.to_json()))) == arch
    assert pickle.loads(pickle.dumps(arch)) == arch


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        ([3, 4, 6, 3], r'mapping .* but got \[3, 4, 6, 3\]'),
        (None, 'mapping .* but got None'),
        ({'stage1': '3'}, "stage1 must be an integer, but got '3'"),
        ({'stage1': 3.0}, 'stage1 must be an integer, but got 3.0'),
        ({'stage1': True}, 'stage1 must be an integer, but got True'),
        ({1: 3}, 'name of a choice is a string, but got 1'),
    ],
)
def test_bad_input_is_an_arch_error(bad, message):
    with pytest.raises(ArchError, match=message):
        Arch.from_json(bad)
