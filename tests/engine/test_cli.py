"""How tools end, and with which message."""

import errno
import os
import re
import runpy
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.registry import Registry
from mmengine.runner import Runner
from scripts import ROOT

from mmcr.checks import check_sections
from mmcr.cli import message_of, user_errors
from mmcr.errors import UserError
from mmcr.registry import MODELS, config_errors
from mmcr.search import ExhaustiveSearcher

SLEEPS = """
import time
from mmcr.cli import resumable
with resumable():
    print('runs', flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_tool_says_that_it_goes_on(number):
    tool = subprocess.Popen(
        [sys.executable, '-c', SLEEPS],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # what a shell starts in the background ignores it, and so would the tool
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert tool.stdout.readline() == 'runs\n'
    tool.send_signal(number)
    _, said = tool.communicate(timeout=30)
    assert said == 'stopped; the same command goes on from here\n'
    assert tool.returncode == 1


NET = dict(type='mmcr.CRResNet', depth=50)


def raised(call) -> Exception:
    with pytest.raises(Exception) as error:
        call()
    return error.value


@pytest.mark.parametrize(
    'error, said',
    {
        OSError(errno.ENOSPC, 'No space left on device', 'a.pth'): 'a.pth: .*Make room',
        OSError(errno.ENOSPC, 'No space left on device'): 'Make room',
        PermissionError(errno.EACCES, 'Permission denied', 'a'): 'a: .*permissions',
        OSError(errno.EMFILE, 'Too many open files'): 'ulimit -n',
        FileNotFoundError('Caught FileNotFoundError in worker 0.\nb.png'): r'b\.png$',
        MemoryError(): 'batch_size',
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you"): 'batch_size',
        torch.OutOfMemoryError('CUDA out of memory. Tried to'): 'batch_size',
    }.items(),
)
def test_what_the_system_says_is_one_message(capsys, error, said):
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and re.search(said, line)


@pytest.mark.parametrize(
    'call, said',
    {
        lambda: open('a\0b'): 'null byte',
        lambda: '\udcff'.encode(): 'UTF-8',
        lambda: MODELS.build(dict(type='mmcr.CRResNot')): 'near ones: .*CRResNet',
        lambda: MODELS.build(dict(NET, base_chanels=5)): 'near ones: base_channels',
        lambda: MODELS.build(dict(NET, base_channels='a')): 'base_channels must be',
        lambda: MODELS.build(dict(depth=5)): '"type"',
        lambda: Runner.build_dataloader(dict(dataset=[], sampler=[], no=1)): 'no',
    }.items(),
)
def test_what_cannot_be_built_is_one_message(quiet_mmdet, call, said):
    assert re.search(said, message_of(raised(call)))


@pytest.mark.parametrize(
    'call', [lambda: [][1], lambda: {}['a'], lambda: None.a, lambda: 1 / 0]
)
def test_faults_of_the_program_keep_their_traceback(call):
    error = raised(call)
    assert message_of(error) is None
    with pytest.raises(type(error)), user_errors():
        raise error


def test_a_registry_of_ones_own_offers_its_names():
    animals = Registry('animal', scope='test_cli')
    animals.register_module(name='Horse', module=dict)
    said = message_of(raised(lambda: animals.build(dict(type='Hose'))))
    assert 'Hose is not in the registry of animals (near ones: Horse)' in said


def test_code_that_reads_a_config_says_what_it_stumbled_over():
    with pytest.raises(UserError, match='The searcher must be one, but: TypeError'):
        with config_errors('The searcher must be one, but'):
            len(5)
    with pytest.raises(UserError, match="can't decode byte 0xe4 in position 1"):
        with config_errors('The searcher must be one, but'):
            'Käfig'.encode('latin-1').decode()


@pytest.mark.parametrize(
    'cfg, said',
    [
        (dict(model=5), 'model of a config must be a dict, but is 5'),
        (dict(model=dict(backbone='a')), 'model.backbone'),
        (dict(test_dataloader=dict(dataset=dict(pipeline=[1]))), 'pipeline'),
        (dict(custom_hooks=[None]), 'custom_hooks of a config must be a list of dicts'),
        (dict(custom_hooks=dict(a=1)), 'custom_hooks of a config must be a list'),
        (dict(default_hooks=dict(a=[1])), 'default_hooks.a of a config must be a dict'),
        (dict(work_dir=5), 'work_dir of a config must be a text'),
    ],
)
def test_sections_of_a_config_are_of_their_kind(cfg, said):
    check_sections(dict(model=dict(backbone=None), custom_hooks=None, train_cfg=None))
    with pytest.raises(UserError, match=said):
        check_sections(cfg)


def test_what_cannot_initialize_weights_is_said():
    with pytest.raises(TypeError) as error:
        MODELS.build(dict(type='mmcr.CRResNet', depth=18, init_cfg=5)).init_weights()
    said = message_of(error.value)
    assert 'CRResNet cannot be built as the config has it: TypeError' in said


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """What srun is called with, a line each, in an environment without PYTHONPATH."""
    program, said = tmp_path / 'srun', tmp_path / 'said'
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@" >{said}\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.delenv('PYTHONPATH', raising=False)
    monkeypatch.chdir(tmp_path)
    return said


def test_arguments_of_srun_stay_whole(srun, monkeypatch):
    monkeypatch.setenv('SRUN_ARGS', '--comment "a b" --x=* --y=$(touch bad)')
    script = ROOT / 'tools/slurm_train.sh'
    subprocess.run([script, 'part', 'my job', 'a.py', 'work'], check=True)
    path, *words = srun.read_text().splitlines()
    assert path == str(ROOT / 'tools/..')  # no empty part: the current folder
    at = words.index('--comment')
    assert words[at : at + 4] == ['--comment', 'a b', '--x=*', '--y=$(touch']
    assert '--job-name=my job' in words and not os.path.exists('bad')
    assert words[-5:] == ['a.py', '--work-dir', 'work', '--launcher', 'slurm']

    monkeypatch.setenv('PYTHONPATH', '/mine')
    monkeypatch.delenv('SRUN_ARGS')
    subprocess.run([script, 'part', 'job', 'a.py', 'work'], check=True)
    path, *words = srun.read_text().splitlines()
    assert path == f'{ROOT}/tools/..:/mine' and '' not in words


@pytest.mark.parametrize(
    'typed, lacks',
    {
        'slurm_train.sh part job a.py': 'WORK_DIR',
        'slurm_search.sh part job a.py': 'CHECKPOINT',
        'slurm_test.sh part job a.py': 'CHECKPOINT',
        'dist_train.sh a.py': 'GPUS',
        'dist_search.sh a.py a.pth': 'GPUS',
        'dist_test.sh a.py a.pth': 'GPUS',
    }.items(),
)
def test_scripts_say_what_they_lack(srun, typed, lacks):
    script, *words = typed.split()
    done = subprocess.run(
        [ROOT / 'tools' / script, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode and f'{lacks} is missing: {script}' in done.stderr
    assert not srun.exists()


@pytest.mark.parametrize(
    'tool, typed, argument',
    [
        ('train', 'a.py --resume EMPTY', '--resume'),
        ('test', 'a.py EMPTY', 'checkpoint'),
        ('search', 'EMPTY a.pth', 'config'),
        ('reallocate', 'EMPTY', 'config'),
        ('analysis_tools/erf', 'a.py --against b.py EMPTY', '--against'),
        ('analysis_tools/zoo_figure', '--out a.png --runs EMPTY', '--runs'),
        ('dataset_converters/split_coco', 'EMPTY --out-dir a', 'ann'),
        ('deployment/export', 'a.py EMPTY --to onnx', 'checkpoint'),
        ('model_converters/extract_subnet', 'a b c d --detector EMPTY', '--detector'),
        ('model_converters/reallocate_weights', 'EMPTY b c', 'checkpoint'),
    ],
)
def test_a_path_that_is_empty_is_refused(monkeypatch, capsys, tool, typed, argument):
    words = [word.replace('EMPTY', '') for word in typed.split()]
    monkeypatch.setattr(sys, 'argv', ['tool', *words])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
    said = capsys.readouterr().err
    assert f'argument {argument}: it must name a path, but is empty' in said


def test_a_searcher_that_is_given_as_a_class_has_its_quicker_form():
    fast = runpy.run_path(str(ROOT / 'tools/search.py'))['fast']
    assert fast(ExhaustiveSearcher) == fast('mmcr.ExhaustiveSearcher')
