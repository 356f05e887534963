import json
import os
import re
import shutil
import signal
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
        written = json.loads(path.read_text())
        assert re.fullmatch('[0-9a-f]{8}', written.pop('crc32')) and written == HEADER

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


def start(path):
    """Opens a journal in a process of its own and waits until it is asked to end."""
    program = (
        'import sys, mmcr.search as s; s.Journal(sys.argv[1], dict(checkpoint="abc")); '
        'print("open", flush=True); sys.stdin.read()'
    )
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    run = [sys.executable, '-c', program, path]
    return subprocess.Popen(run, env=ENV, text=True, **pipes)


class TestLock:
    def test_another_process_is_refused_until_this_one_ends(self, path, written):
        before = path.read_bytes()
        linked = path.parent.with_name('linked') / 'name.jsonl'
        linked.parent.mkdir()
        os.link(path, linked)
        first = [start(path), start(linked)]
        for process in first:
            assert 'written by another process; wait' in process.communicate()[1]
        path.rename(path.with_name('renamed'))  # its folder is still taken
        assert 'written by another' in start(path).communicate()[1]
        assert not path.exists() and linked.read_bytes() == before

    def test_a_killed_process_leaves_no_lock(self, path):
        process = start(path)
        assert process.stdout.readline() == 'open\n'
        assert 'written by another' in start(path).communicate()[1]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert Journal(path, dict(checkpoint='abc')).scores == {}

    def test_a_forked_worker_holds_no_lock(self, path, written):
        begun, told = os.pipe()
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            # fork() returns in the child once its hooks ran, in the parent before that.
            os.write(told, b'.')
            os.read(ours, 1)
            os._exit(0)
        try:
            os.read(begun, 1)
            open_files = {
                os.path.realpath(f'/proc/{child}/fd/{name}')
                for name in os.listdir(f'/proc/{child}/fd')
            }
            assert str(path) not in open_files and str(path.parent) not in open_files
        finally:
            os.write(theirs, b'.')
            os.waitpid(child, 0)

    def test_this_process_may_open_it_again_and_read_it(self, path, written):
        assert Journal(path, HEADER).scores == written.scores
        assert len(read_journal(path)[1]) == 5


def removed(path):
    path.unlink()


def replaced(path):
    copy = path.with_name('copy')
    shutil.copy(path, copy)
    copy.replace(path)


def truncated(path):
    os.truncate(path, 10)


def emptied(path):
    path.write_bytes(b'')


def grown(path):
    with path.open('ab') as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])


def moved(path):
    path.parent.rename(path.parent.with_name('moved'))


@pytest.mark.parametrize(
    'change', [removed, replaced, truncated, emptied, grown, moved]
)
def test_a_file_that_changes_meanwhile_is_an_error_at_once(path, change):
    *trials, last = some_trials()
    running = Journal(path, HEADER)
    for trial in trials:
        running.append(trial)
    change(path)
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(JournalError, match='removed, replaced or changed meanwhile'):
        running.append(last)
    assert left == (path.read_bytes() if path.exists() else None)


def test_a_full_disk_leaves_no_half_line(path, written, monkeypatch):
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, 'write', lambda file, line: write(file, line[:20]))
    with pytest.raises(JournalError, match='must be written, .* no room is left'):
        written.append(Trial(Proposal(Complete(Arch({'a': 9}))), 1.0))
    assert path.read_bytes() == before


class TestWhatIsNoJournal:
    """Every content, and every thing in its place, ends in a message."""

    @pytest.mark.parametrize('make', ['mkdir', 'fifo', 'loop', 'parent'])
    def test_things_that_are_no_file(self, path, make):
        path.parent.mkdir()
        if make == 'mkdir':
            path.mkdir()
        elif make == 'fifo':
            os.mkfifo(path)
        elif make == 'loop':
            path.symlink_to(path.name)
        else:
            path.parent.rmdir()
            path.parent.write_text('')
        with pytest.raises(JournalError, match='must be a file to read and to write'):
            Journal(path, HEADER)
        with pytest.raises(JournalError, match='cannot be read'):
            read_journal(path)

    @pytest.mark.parametrize(
        'text',
        [
            '[' * 100_000,
            '{"a": ' * 100_000,
            '9' * 5000,
            '"score"',
            'null',
            '{"a": 1, "a": 2}',
            '{"a": "\\ud800"}',
            '{"a":1}',
            '{"a": "\xff"}',
        ],
    )
    def test_a_header(self, path, text):
        path.parent.mkdir()
        path.write_bytes(text.encode('latin-1') + b'\n')
        for read in (read_journal, lambda path: Journal(path, HEADER)):
            with pytest.raises(JournalError, match='Line 1 of .* is not the header'):
                read(path)

    @pytest.mark.parametrize(
        'field, text',
        [
            ('score', '1e999'),
            ('score', 'Infinity'),
            ('score', '1' + '0' * 400),
            ('score', 'true'),
            ('score', '0.25'),  # not that of its metrics
            ('metrics', '[["AP", 1]]'),
            ('metrics', '{"AP": NaN}'),
            ('metrics', '{"AP": null}'),
            ('portion', '[0.0, 2.0]'),
            ('portion', '[[], 1.0]'),
            ('portion', '5'),
            ('candidate', '"arch"'),
            ('candidate', '{"arch": {"a": 1.5}}'),
            ('candidate', '{"arch": [1]}'),
            ('round', '-1'),
            ('asked_by', '"b"'),
            ('more', '1'),
        ],
    )
    def test_a_trial(self, path, field, text):
        fields = dict(
            candidate='{"arch": {"a": 1}}',
            portion='[0.0, 1.0]',
            score='0.5',
            metrics='{"AP": 0.5}',
        )
        path.parent.mkdir()
        for changed in ({}, {field: text}):
            items = {**fields, **changed}.items()
            line = ', '.join(f'"{name}": {value}' for name, value in items)
            path.write_text(f'{{"score": "AP"}}\n{{{line}}}\n')
            if not changed:
                assert len(read_journal(path)[1]) == 1
        with pytest.raises(JournalError, match='Line 2 of .* is damaged'):
            read_journal(path)


def test_a_flipped_bit_anywhere_is_noticed(path, written):
    whole = path.read_bytes()
    entries = read_journal(path)[1]
    for i in range(len(whole)):
        flipped = bytearray(whole)
        flipped[i] ^= 1 << i * 5 % 8
        path.write_bytes(flipped)
        with pytest.raises(JournalError, match='Line|journal'):
            read_journal(path)
    path.write_bytes(whole)
    assert read_journal(path)[1] == entries


def test_a_line_of_another_journal_is_noticed(path, written):
    other = path.with_name('other.jsonl')
    Journal(other, {**HEADER, 'seed': 1}).append(some_trials()[0])
    path.write_bytes(path.read_bytes() + other.read_bytes().splitlines(True)[1])
    with pytest.raises(JournalError, match='Line 7 of .* is damaged'):
        read_journal(path)


def test_two_scores_of_one_proposal_are_noticed(path):
    journal = Journal(path, HEADER)
    proposal = Proposal(Complete(Arch({'a': 1})))
    for number, score in enumerate((0.5, 0.5)):  # asked again in a later round
        journal.append(Trial(proposal, score, round=number))
    assert len(read_journal(path)[1]) == 2
    journal.append(Trial(proposal, 0.25, round=2))
    with pytest.raises(JournalError, match='Line 4 of .* is damaged'):
        read_journal(path)


def test_a_journal_without_checksums_goes_on(path, written):
    """As earlier versions wrote them; what is new has them."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line['crc32']
    old = ''.join(f'{json.dumps(line)}\n' for line in lines[:-1])
    path.write_text(old)
    again = Journal(path, HEADER)
    again.append(some_trials()[-1])
    assert path.read_text().startswith(old)
    assert 'crc32' in json.loads(path.read_text().splitlines()[-1])
    assert Journal(path, HEADER).scores == written.scores
    whole = path.read_bytes()
    for i in range(len(old), len(whole)):
        flipped = bytearray(whole)
        flipped[i] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(JournalError):
            read_journal(path)


def test_what_a_searcher_says_about_itself_is_not_compared(path):
    Journal(path, dict(searcher={'kind': 'a', 'about': {'round': 'lap'}}))
    assert Journal(path, dict(searcher={'kind': 'a'})).scores == {}
    Journal(path, dict(searcher={'kind': 'a', 'about': {'round': 'other'}}))
