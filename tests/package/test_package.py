"""What pip installs from wheel and sdist works without the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from scripts import ROOT

FOLDERS = '.ci benchmarks configs docs mmcr requirements tests tools'.split()


def python(*arguments, cwd, path='', fails=False):
    """Runs this interpreter elsewhere; returns what it printed, or why it failed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == fails and 'Traceback' not in done.stderr, done.stderr
    return done.stderr if fails else done.stdout


def build(kind, source, out):
    """Calls what `python -m build` and pip call; returns the path of the file."""
    script = f'from setuptools import build_meta as b; b.build_{kind}({str(out)!r})'
    python('-c', script, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory):
    """The sdist of this checkout, unpacked: setuptools builds in a copy of it."""
    folder = tmp_path_factory.mktemp('sdist')
    for path in ROOT.iterdir():
        if path.name in FOLDERS:
            shutil.copytree(path, folder / 'copy' / path.name, symlinks=True)
        elif path.is_file():
            shutil.copy(path, folder / 'copy')
    with tarfile.open(build('sdist', folder / 'copy', folder / 'dist')) as archive:
        archive.extractall(folder)
    return next(folder.glob('mmcr-*'))


@pytest.fixture(scope='module')
def installed(unpacked, tmp_path_factory):
    """A folder with the wheel that the sdist gives, as pip installs it."""
    folder = tmp_path_factory.mktemp('wheel')
    wheel = build('wheel', unpacked, folder / 'dist')
    pip = ('-m', 'pip', 'install', '--no-deps', '--no-index', '--target')
    python(*pip, folder / 'site', wheel, cwd=folder)
    return folder / 'site'


def files(folder):
    """The names of all files under a folder, without what Python compiled."""
    paths = (path for path in folder.rglob('*') if '__pycache__' not in path.parts)
    return {path.relative_to(folder) for path in paths if path.is_file()}


def test_the_wheel_has_modules_configs_and_tools_as_files(installed):
    ours, theirs = (
        {path for path in files(folder / 'mmcr') if '.mim' not in path.parts}
        for folder in (ROOT, installed)
    )
    assert ours == theirs
    for name in ('configs', 'tools'):
        links = installed / 'mmcr/.mim' / name
        assert files(links) == files(ROOT / name) - {Path('make_env.py')}
    assert (installed / 'mmcr/.mim/model-index.yml').is_file()
    assert not any(path.is_symlink() for path in installed.rglob('*'))
    assert os.access(installed / 'mmcr/.mim/tools/dist_train.sh', os.X_OK)


def test_the_sdist_runs_its_light_tests(unpacked):
    assert not any(path.is_symlink() for path in unpacked.rglob('*'))
    for name in ('LICENSE', 'CITATION.cff', 'CHANGELOG.md', 'CONTRIBUTING.md'):
        assert (unpacked / name).is_file()
    tests = ('tests/space/test_arch.py', 'tests/space/test_light_imports.py')
    assert 'passed' in python('-m', 'pytest', '-q', *tests, cwd=unpacked)


def test_the_command_needs_the_stack_for_its_tools_only(installed, tmp_path):
    # -S: without site-packages there is no torch, whatever is installed
    there = dict(cwd=tmp_path, path=installed)
    said = python('-S', installed / 'bin/mmcr', '--help', **there)
    for command in ('reallocate', 'train', 'search', 'test', 'demo', 'demo-detnas'):
        assert f'\n  {command} ' in said
    for command in ('train', 'demo'):
        said = python('-S', '-m', 'mmcr.cli', command, **there, fails=True)
        assert 'pip install torch\n' in said
    given = 'search', 'mmcr::none.py', 'supernet.pth'
    said = python('-m', 'mmcr.cli', *given, **there, fails=True)
    assert f'there is none at {installed}/mmcr/.mim/configs/none.py' in said


@pytest.mark.parametrize('first', ['mmcr', 'mmengine'])
def test_mmcr_base_paths_need_its_import_only(installed, tmp_path, first):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmcr::faster_rcnn/faster-rcnn_cr-r50_fpn_1x_coco.py'\n"
    )
    script = (
        f'import sys, {first}, mmcr\n'
        "assert not {'torch', 'mmcv', 'mmdet'} & set(sys.modules)\n"
        'from mmengine.config import Config\n'
        'from mmcr.space import resnet_stage_space, stage_blocks_of\n'
        "backbone = Config.fromfile('mine.py').model.backbone\n"
        'assert backbone.stage_blocks in [\n'
        '    stage_blocks_of(arch) for arch in resnet_stage_space(16)]\n'
        'print(backbone.type, mmcr.__file__)'
    )
    said = python('-c', script, cwd=tmp_path, path=installed)
    assert said == f'mmcr.CRResNet {installed}/mmcr/__init__.py\n'
