"""What tools/make_env.py does without network and compiler."""

import shutil
import subprocess
import sys
import tarfile

import pytest
from scripts import ROOT


@pytest.fixture
def make_env(tmp_path, monkeypatch):
    """The script as a module, of a copied repository whose .venv seems finished."""
    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    shutil.copytree(ROOT / 'tools', tmp_path / 'tools')
    monkeypatch.syspath_prepend(tmp_path / 'tools')
    monkeypatch.delitem(sys.modules, 'make_env', raising=False)
    import make_env

    make_env.PYTHON.parent.mkdir(parents=True)
    make_env.PYTHON.symlink_to(sys.executable)
    make_env.STAMP.write_text(make_env.wanted())
    make_env.BUILD.mkdir()
    monkeypatch.setenv('CXX', shutil.which('true'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return make_env


@pytest.mark.parametrize('changed', ['requirements/torch.txt', 'tools/make_env.py'])
def test_a_change_of_pins_or_script_makes_it_again(make_env, monkeypatch, changed):
    make_env.make()
    with (make_env.ROOT / changed).open('a') as file:
        file.write('# changed\n')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(SystemExit, match='no C.. compiler no-such-compiler'):
        make_env.make()


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_stopped_run_is_not_taken_for_whole(make_env, monkeypatch):
    make_env.PYTHON.unlink()
    monkeypatch.setattr(make_env, 'step', interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_env.make()
    assert list(make_env.VENV.iterdir()) == [make_env.STAMP]
    assert make_env.STAMP.read_text() == ''


def test_the_environment_of_somebody_else_is_not_touched(make_env):
    make_env.STAMP.unlink()
    with pytest.raises(SystemExit, match='PYTHON=.venv/bin/python'):
        make_env.make()


def test_the_wheel_is_compiled_once_for_the_same_facts(make_env, monkeypatch):
    # with cuda there is no header to compile
    monkeypatch.setattr(make_env, 'PROBE', 'print(\'{"includes": [], "cuda": "13"}\')')
    done = []

    def step(log, title, *command, variables=None):
        done.append(title)
        folder = command[command.index('-w' if variables else '-d') + 1]
        folder.mkdir(parents=True, exist_ok=True)
        tarfile.open(folder / 'onedl_mmcv.tar.gz', 'w:gz').close()
        (folder / 'onedl_mmcv.whl').write_text('whole')

    monkeypatch.setattr(make_env, 'step', step)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make_env.os, 'replace', interrupt)
        make_env.mmcv_wheel(None, 'true')
    wheels = [make_env.mmcv_wheel(None, 'true') for _ in range(2)]
    assert done == ['mmcv source', "mmcv's ops"] * 2
    assert wheels[0] == wheels[1] and wheels[0].read_text() == 'whole'
    monkeypatch.setattr(make_env, 'FLAGS', '-O0')
    assert make_env.mmcv_wheel(None, 'true') != wheels[0]


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        ('Retrying (Retry(0))\nNo matching distribution', 'index cannot be reached'),
        ('one\n' * 50 + 'the cause', 'one\nthe cause\nThe same command'),
    ],
)
def test_a_failed_step_says_why(make_env, output, reason):
    command = (sys.executable, '-c', f'print({output!r}); raise SystemExit(3)')
    with make_env.LOG.open('ab') as log, pytest.raises(SystemExit, match=reason):
        make_env.step(log, 'torch', *command)


def test_check_names_every_module_that_is_missing():
    # -S: without site-packages there is no torch, whatever is installed
    command = [sys.executable, '-S', '-E', ROOT / 'tools/make_env.py', '--check']
    said = subprocess.run(command, capture_output=True, text=True).stderr
    for part in ('torch (Mod', 'mmengine (', 'mmcv.ops (', 'leave PYTHON out'):
        assert part in said


@pytest.mark.skipif(
    not hasattr(tarfile, 'data_filter'), reason='this Python cannot filter archives'
)
def test_an_archive_writes_nothing_outside_of_its_folder(make_env, monkeypatch):
    monkeypatch.setattr(make_env, 'PROBE', 'print(\'{"includes": [], "cuda": "13"}\')')

    def step(log, title, *command):
        folder = command[command.index('-d') + 1]
        folder.mkdir(parents=True)
        with tarfile.open(folder / 'onedl_mmcv.tar.gz', 'w:gz') as archive:
            archive.addfile(tarfile.TarInfo('../../outside'))

    monkeypatch.setattr(make_env, 'step', step)
    with pytest.raises(tarfile.OutsideDestinationError):
        make_env.mmcv_wheel(None, 'true')
