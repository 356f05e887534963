"""The parts of tools/make_env.py that need no network and build nothing."""

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


@pytest.fixture
def repository(tmp_path):
    """A copy of what make_env reads, with an environment that seems finished."""
    from make_env import Environment

    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    shutil.copytree(ROOT / 'tools/environment', tmp_path / 'tools/environment')
    shutil.copy(ROOT / 'tools/make_env.py', tmp_path / 'tools')
    environment = Environment(tmp_path)
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to(sys.executable)
    environment.owner.write_text(str(tmp_path))
    environment.stamp.write_text(environment.wanted())
    return tmp_path


def make_env(repository, *arguments, options=(), **variables):
    """Runs the copy's script; no C++ compiler can be found unless one is named."""
    return subprocess.run(
        [sys.executable, *options, repository / 'tools/make_env.py', *arguments],
        env={**os.environ, 'CXX': 'no-such-compiler', **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_one_message(answer, *parts):
    assert answer.returncode == 1
    assert answer.stderr.startswith('make_env: ')
    assert 'Traceback' not in answer.stderr
    for part in parts:
        assert part in answer.stderr


# --- the stamp -------------------------------------------------------------------


def test_finished_environment_is_left_alone(repository):
    before = sorted((repository / '.venv').rglob('*'))
    answer = make_env(repository)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, '', '')
    assert sorted((repository / '.venv').rglob('*')) == before


@pytest.mark.parametrize(
    'changed',
    ['requirements/runtime.txt', 'tools/make_env.py', 'tools/environment/wheels.py'],
)
def test_change_of_pins_or_script_makes_it_again(repository, changed):
    path = repository / changed
    path.write_text(path.read_text() + '# changed\n')
    assert_one_message(make_env(repository), 'C++ compiler', 'no-such-compiler')


def test_lost_interpreter_makes_it_again(repository):
    (repository / '.venv/bin/python').unlink()
    assert_one_message(make_env(repository), 'C++ compiler')


def test_stamp_of_a_moved_repository_does_not_count(repository):
    from make_env import Environment

    moved = repository.rename(repository.with_name('moved'))
    assert not Environment(moved).finished()


def test_environment_of_somebody_else_is_not_touched(repository):
    from environment.checks import EnvError
    from make_env import Environment

    environment = Environment(repository)
    environment.owner.unlink()
    with pytest.raises(EnvError, match='PYTHON=.venv/bin/python'):
        with environment.lock():
            pass
    assert environment.stamp.exists()


# --- the cached wheel ------------------------------------------------------------

FACTS = {
    'mmcv': '2.3.6',
    'torch': '2.13.0+cpu',
    'python': 'cpython-311',
    'platform': ['linux-x86_64', 'glibc', '2.36'],
    'cuda': None,
    'gpus': [],
    'flags': '-O2',
    'compiler': ['c++', 'c++ 12.2.0'],
}


@pytest.mark.parametrize('name', FACTS)
def test_key_changes_with_each_fact(name):
    from environment.wheels import cache_key

    assert cache_key({**FACTS, name: 'another'}) != cache_key(FACTS)


def test_key_is_the_same_for_the_same_facts():
    from environment.wheels import cache_key

    assert cache_key(dict(reversed(list(FACTS.items())))) == cache_key(FACTS)


def test_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    from environment.wheels import cache_folder

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_folder() == tmp_path / 'mmcr/wheels'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cache_folder() == tmp_path / '.cache/mmcr/wheels'


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / 'onedl_mmcv-2.3.6-cp311.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('mmcv/__init__.py', 'x = 1\n' * 1000)
    return path


def test_stored_wheel_is_found(wheel, tmp_path):
    from environment.wheels import find_wheel, store_wheel

    folder = tmp_path / 'kept'
    assert find_wheel(folder) is None
    stored = store_wheel(wheel, folder, FACTS)
    assert find_wheel(folder) == stored
    assert stored.read_bytes() == wheel.read_bytes()


def test_interrupted_store_leaves_no_wheel(wheel, tmp_path, monkeypatch):
    from environment import wheels

    def stops_half_way(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(errno.ENOSPC, 'No space left on device')

    folder = tmp_path / 'kept'
    monkeypatch.setattr(wheels.shutil, 'copyfile', stops_half_way)
    with pytest.raises(OSError):
        wheels.store_wheel(wheel, folder, FACTS)
    assert wheels.find_wheel(folder) is None
    monkeypatch.undo()
    wheels.store_wheel(wheel, folder, FACTS)
    assert wheels.find_wheel(folder)


def test_damaged_wheel_is_not_used(wheel, tmp_path):
    from environment.wheels import find_wheel, store_wheel

    stored = store_wheel(wheel, tmp_path / 'kept', FACTS)
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    assert find_wheel(stored.parent) is None
    stored.write_bytes(whole[:60] + b'????' + whole[64:])
    assert find_wheel(stored.parent) is None


# --- messages --------------------------------------------------------------------


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 14, 0)])
def test_python_that_has_no_packages(version):
    from environment.checks import EnvError, check_python

    with pytest.raises(EnvError, match='3.10 to 3.13.*BASE_PYTHON'):
        check_python(version)


def test_this_python_will_do():
    from environment.checks import check_python

    check_python((3, 10, 0))
    check_python((3, 13, 9))


def test_compiler_that_fails(tmp_path):
    from environment.checks import EnvError, check_compiler

    broken = tmp_path / 'c++'
    broken.write_text('#!/bin/sh\ntest $1 = --version || (echo no vector >&2; false)')
    broken.chmod(0o755)
    with pytest.raises(EnvError, match=r'does not compile C\+\+17:\nno vector'):
        check_compiler(str(broken))


def test_disk_without_room(tmp_path):
    from environment.checks import EnvError, check_disk

    with pytest.raises(EnvError, match='needs 1000000 GB of disk'):
        check_disk(tmp_path, needed_gb=1_000_000)


def test_gpu_without_toolkit():
    from environment.checks import EnvError, check_cuda

    with pytest.raises(EnvError, match='CUDA 13.0 toolkit.*CUDA_VISIBLE_DEVICES='):
        check_cuda('13.0', None)
    check_cuda('13.0', '/usr/local/cuda')
    check_cuda(None, None)


def test_python_without_headers(tmp_path):
    from environment.checks import EnvError, check_headers

    with pytest.raises(EnvError, match='python3-dev'):
        check_headers([str(tmp_path)])
    (tmp_path / 'Python.h').touch()
    check_headers([str(tmp_path)])


@pytest.mark.parametrize(
    ('output', 'message'),
    [
        ('OSError: [Errno 28] No space left on device', 'disk is full'),
        ('The virtual environment was not created: no ensurepip', 'venv module'),
        (
            'Max retries exceeded: Temporary failure in name resolution\n'
            'ERROR: No matching distribution found for torch==2.13.0',
            'cannot be reached',
        ),
        ('ERROR: No matching distribution found for torch==2.13.0', 'no torch==2.13.0'),
        ('one\n' * 50 + 'error: the cause', 'the cause'),
    ],
)
def test_failed_step_is_explained(output, message):
    from environment.checks import explain

    explanation = explain('torch', output)
    assert message in explanation
    assert len(explanation.splitlines()) < 15


def test_failed_command_names_step_and_log(tmp_path, capsys):
    from environment.checks import EnvError
    from environment.steps import run

    log = tmp_path / 'log'
    command = [sys.executable, '-c', 'print("it broke"); raise SystemExit(3)']
    with pytest.raises(EnvError, match=f'torch failed:\nit broke\n.*{log}'):
        run('torch', command, log)
    assert log.read_text() == 'it broke\n'


def test_progress_of_the_compiler():
    from environment.steps import Progress

    progress = Progress("mmcv's ops")
    progress.read('  [1/78] c++ -c a.cpp', now=10)
    assert progress.state == '1 of 78 files'
    progress.read('  [28/78] c++ -c b.cpp', now=10 + 27 * 3)
    assert progress.state == '28 of 78 files, about 2:30 left'


def test_check_names_every_module_that_is_missing():
    # -S: without site-packages there is no torch, whatever is installed.
    answer = make_env(ROOT, '--check', options=['-S', '-E'])
    assert_one_message(answer, 'torch (Mod', 'mmengine (', 'mmcv.ops (', 'PYTHON')


@pytest.mark.slow
def test_check_of_an_environment_that_will_do():
    answer = make_env(ROOT, '--check', 'pytest')
    assert (answer.returncode, answer.stdout) == (0, '')
