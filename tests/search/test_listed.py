"""A list of architectures is scored, and nothing else."""

import json

import pytest

from mmcr.errors import UserError
from mmcr.search import ListedSearcher, Trial
from mmcr.space import operation_space, resnet_stage_space, stage_arch

SPACE = resnet_stage_space(16)
LIST = [[3, 4, 6, 3], dict(stage4=9, stage1=1, stage2=3, stage3=3), [3, 4, 6, 3]]


def test_each_is_asked_once_and_the_best_found(tmp_path):
    (tmp_path / 'members.json').write_text(json.dumps(LIST))
    for archs in LIST, str(tmp_path / 'members.json'):
        searcher = ListedSearcher(SPACE, archs)
        asked = searcher.ask()
        assert [p.candidate.arch for p in asked] == [
            stage_arch((3, 4, 6, 3)),
            stage_arch((1, 3, 3, 9)),
        ]
        assert all(p.on_all for p in asked) and searcher.total == 2
        searcher.tell([Trial(p, score, {}) for p, score in zip(asked, (0.1, 0.2))])
        assert searcher.ask() == []
        assert searcher.best().proposal == asked[1]
        assert searcher.to_json()['archs'] == [[3, 4, 6, 3], [1, 3, 3, 9]]


@pytest.mark.parametrize(
    'archs, words',
    [
        ([], 'one architecture at least'),
        ([[3, 4, 6]], r'value for each of .*stage4, but got \[3, 4, 6\]'),
        ([None], 'but got None'),
        (None, 'must be a list .* got None'),
        (5, 'must be a list .* got 5'),
        (dict(stage1=3), 'must be a list .* also of a single one.*stage1'),
        ('nowhere.json', 'nowhere.json cannot be read'),
        ([[3, 4, 6, 6]], 'exactly 16'),
    ],
)
def test_bad_lists_are_refused(archs, words):
    with pytest.raises(UserError, match=words):
        ListedSearcher(SPACE, archs)


def test_one_value_stands_for_all_choices():
    dilations = operation_space((1, 2, 1, 1))
    searcher = ListedSearcher(dilations, [2])
    assert [set(arch.values()) for arch in searcher.archs] == [{2}]


def test_a_file_without_a_list_is_refused(tmp_path):
    (tmp_path / 'members.json').write_text('{"stage1": 3}')
    with pytest.raises(UserError, match='must be a list .* in .*members.json'):
        ListedSearcher(SPACE, str(tmp_path / 'members.json'))
