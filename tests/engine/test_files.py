"""Files are written whole, once for good, and never through what others put there."""

import errno
import fcntl
import os
import stat

import pytest

from mmcr import files
from mmcr.errors import UserError
from mmcr.files import check_output, read_state, undone_if_refused, write_bytes


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_are_kept(tmp_path, umask):
    path = tmp_path / 'a.json'
    write_bytes(path, b'1')
    assert mode_of(path) == 0o640
    path.chmod(0o604)
    write_bytes(path, b'2')
    assert (mode_of(path), path.read_bytes()) == (0o604, b'2')
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_link_leads_to_is_written_and_other_names_are_not(tmp_path):
    target, link, other = (tmp_path / name for name in ('target', 'link', 'other'))
    target.write_bytes(b'old')
    link.symlink_to(target)
    os.link(target, other)
    write_bytes(link, b'new')
    assert link.is_symlink() and target.read_bytes() == b'new'
    assert other.read_bytes() == b'old'


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Its name would have to be guessed; even then the victim stays as it is."""
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    monkeypatch.setattr(files.secrets, 'token_hex', lambda size: 'ab' * size)
    (tmp_path / f'.a.{"ab" * 8}.part').symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / 'a', b'new')
    assert victim.read_bytes() == b'precious'


def test_what_killed_writers_left_goes_and_live_ones_stay(tmp_path):
    dead, live, alien = (
        tmp_path / name
        for name in (f'.a.{"0" * 16}.part', f'.a.{"1" * 16}.part', '.a.txt.part')
    )
    for path in (dead, live, alien):
        path.write_bytes(b'half')
    with live.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_bytes(tmp_path / 'a', b'whole')
    assert {path.name for path in tmp_path.iterdir()} == {'a', live.name, alien.name}


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ('\u00e9' * 127)
    write_bytes(path, b'1')
    assert path.read_bytes() == b'1'


def test_both_file_and_folder_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, 'fsync', lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
    )
    write_bytes(tmp_path / 'a', b'1')
    assert synced == [False, True]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / 'a'
    path.write_bytes(b'old')

    def full(fd):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError) as error:
        write_bytes(path, b'new')
    assert error.value.filename == str(path)
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_a_refusal_undoes_what_was_written(tmp_path):
    kept = tmp_path / 'kept'
    kept.write_bytes(b'old')
    with pytest.raises(UserError), undone_if_refused(tmp_path):
        (tmp_path / 'new').mkdir()
        write_bytes(tmp_path / 'new/a', b'1')
        write_bytes(kept, b'2')
        write_bytes(kept, b'3')
        raise UserError('no')
    assert list(tmp_path.iterdir()) == [kept] and kept.read_bytes() == b'old'


@pytest.mark.parametrize('make', ['file', 'folder', 'dead link'])
def test_an_output_is_a_new_file(tmp_path, make):
    path = tmp_path / 'out'
    check_output('--out', path)
    assert not list(tmp_path.iterdir())
    if make == 'file':
        path.touch()
    elif make == 'folder':
        path.mkdir()
    else:
        path.symlink_to('nowhere')
    with pytest.raises(UserError, match='--out must name a new file'):
        check_output('--out', path)


@pytest.mark.parametrize('content', ['{', '[1]', '[' * 100_000, 'null'])
def test_a_damaged_state_is_said(tmp_path, content):
    path = tmp_path / 'step.json'
    assert read_state(path) == {}
    path.write_text(content)
    with pytest.raises(UserError, match='step.json must'):
        read_state(path)
