import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcr.search import (
    Complete,
    Journal,
    JournalError,
    Proposal,
    Trial,
    read_journal,
)
from mmcr.space import Arch, resnet_stage_space

ENV = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
HEADER = {
    'space': resnet_stage_space(8).to_json(),
    'searcher': {'kind': 'exhaustive'},
    'checkpoint': 'abc',
}


def some_trials():
    return [
        Trial(Proposal(Complete(Arch({'a': a}))), score, {'AP': score / 3})
        for a, score in enumerate((0.1 + 0.2, 1 / 3, 5e-324, -1, 0.1 + 1e-16))
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'work' / 'trials.jsonl'


@pytest.fixture
def written(path):
    """A finished journal of five trials, closed."""
    journal = Journal(path, HEADER)
    for trial in some_trials():
        journal.append(trial)
    return journal


class TestReadBack:
    def test_a_new_journal_is_empty_and_on_disk(self, path):
        assert Journal(path, HEADER).scores == {}
        assert json.loads(path.read_text()) == HEADER

    def test_trials_come_back_to_the_last_bit(self, path, written):
        scores = Journal(path, HEADER).scores
        assert scores == written.scores
        trials = some_trials()
        assert [Trial(t.proposal, **scores[t.proposal.key]) for t in trials] == trials

    def test_metrics_are_what_the_file_holds(self, path):
        metrics = {
            'small': np.float32(0.5),
            'tensor': torch.tensor(2),
            'undefined': float('nan'),
            'by class': [np.float64('inf'), {'a': np.int64(1)}],
        }
        trial = Trial(Proposal(Complete(Arch({'a': 1}))), np.float32(0.25), metrics)
        Journal(path, HEADER).append(trial)
        (known,) = Journal(path, HEADER).scores.values()
        assert known == {'score': 0.25, 'metrics': trial.metrics}
        assert trial.metrics == {
            'small': 0.5,
            'tensor': 2,
            'undefined': None,
            'by class': [None, {'a': 1}],
        }


class TestDamage:
    def test_a_torn_last_line_is_dropped_and_written_again(self, path, written):
        whole = path.read_bytes()
        start = whole[:-1].rindex(b'\n') + 1
        for last in (whole[start:][:1], whole[start:][:20], whole[start:-1], b'\0\0\n'):
            path.write_bytes(whole[:start] + last)
            journal = Journal(path, HEADER)
            assert path.read_bytes() == whole[:start]
            assert len(journal.scores) == 4
            journal.append(some_trials()[-1])
            assert path.read_bytes() == whole

    def test_a_torn_header_is_written_again(self, path):
        Journal(path, HEADER)
        whole = path.read_bytes()
        for end in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:end])
            Journal(path, HEADER)
            assert path.read_bytes() == whole

    @pytest.mark.parametrize(
        'damage',
        [
            b'{"candidate": {"arch": {"a": 1}}, "por\n',
            b'\xff\xfe\n',
            b'\n',
            b'7\n',
            b'{"candidate": {"arch": {"a": 1}}, "score": 0.5, "metrics": {}}\n',
            b'{"candidate": {}, "portion": [0, 1], "score": NaN, "metrics": {}}\n',
            b'{"candidate": {}, "portion": [0, 1], "score": "1", "metrics": {}}\n',
        ],
    )
    def test_a_damaged_line_in_the_middle_is_named(self, path, written, damage):
        lines = path.read_bytes().splitlines(keepends=True)
        lines[2] = damage
        path.write_bytes(b''.join(lines))
        with pytest.raises(JournalError, match=r'Line 3 of .*trials\.jsonl is damaged'):
            Journal(path, HEADER)
        assert path.read_bytes() == b''.join(lines)

    @pytest.mark.parametrize('content', [b'not ours', b'not ours\n', b'[1]\n', b'{}\n'])
    def test_a_file_of_something_else_is_left_alone(self, path, content):
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(JournalError, match='use another work dir'):
            Journal(path, HEADER)
        assert path.read_bytes() == content


class TestReadJournal:
    """What the report reads, also while the search runs."""

    def test_cut_anywhere(self, path, written):
        whole = path.read_bytes() + b'\0\0\n'
        entries = [trial.to_json() for trial in some_trials()]
        for end in [*range(whole.index(b'\n'), len(whole), 3), len(whole)]:
            path.write_bytes(whole[:end])
            complete = max(whole[:end].count(b'\n') - 1, 0)
            assert read_journal(path) == (HEADER, entries[:complete])
            assert path.read_bytes() == whole[:end]

    @pytest.mark.parametrize('content', [b'', b'{"spa', b'[1]\n', b'not ours\n'])
    def test_without_a_header(self, path, content):
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(JournalError, match='Line 1 of .* is not the header'):
            read_journal(path)

    def test_without_a_file(self, path):
        with pytest.raises(JournalError, match=r'trials\.jsonl cannot be read'):
            read_journal(path)


class TestHeader:
    def test_every_differing_field_is_named_with_both_values(self, path, written):
        before = path.read_bytes()
        header = {
            'space': resnet_stage_space(16).to_json(),
            'searcher': {'kind': 'greedy', 'k': 3},
            'checkpoint': 'abc',
            'seed': 1,
        }
        with pytest.raises(JournalError) as error:
            Journal(path, header)
        for difference in (
            'space.budget.low is 8 in the file and 16 now',
            'space.budget.high is 8 in the file and 16 now',
            'searcher.kind is "exhaustive" in the file and "greedy" now',
            'searcher.k is null in the file and 3 now',
            'seed is null in the file and 1 now',
            'use another work dir, or remove the file',
        ):
            assert difference in str(error.value)
        assert 'checkpoint' not in str(error.value)
        assert 'choices' not in str(error.value)
        assert path.read_bytes() == before

    def test_tuples_and_the_order_of_fields_do_not_matter(self, path):
        Journal(path, {'a': (1, 2), 'b': {'c': 1, 'd': 2}})
        assert Journal(path, {'b': {'d': 2, 'c': 1}, 'a': [1, 2]}).scores == {}


class TestLock:
    def test_another_process_is_refused_until_this_one_ends(self, path, written):
        program = 'import sys, test_journal as t; t.Journal(sys.argv[1], t.HEADER)'
        before = path.read_bytes()
        run = dict(cwd=Path(__file__).parent, env=ENV, capture_output=True, text=True)
        first = subprocess.run([sys.executable, '-c', program, path], **run)
        assert 'is being written by another process; wait' in first.stderr
        other = path.with_name('other.jsonl')
        second = subprocess.run([sys.executable, '-c', program, other], **run)
        assert second.stderr == '' and path.read_bytes() == before
        assert Journal(other, HEADER).scores == {}

    def test_this_process_may_open_it_again_and_read_it(self, path, written):
        assert Journal(path, HEADER).scores == written.scores
        assert len(read_journal(path)[1]) == 5


def test_what_a_searcher_says_about_itself_is_not_compared(path):
    Journal(path, dict(searcher={'kind': 'a', 'about': {'round': 'lap'}}))
    assert Journal(path, dict(searcher={'kind': 'a'})).scores == {}
    Journal(path, dict(searcher={'kind': 'a', 'about': {'round': 'other'}}))
