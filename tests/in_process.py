"""Steps of a work without the start of a process, most of what small ones take."""

import runpy
import sys
from itertools import count
from pathlib import Path

import pytest

NAMES = map('step_{}'.format, count())  # of runners, which must differ
TOOLS = Path(__file__).parents[1] / 'tools'


def in_this_process(runner, step, lock, tool, *arguments):
    """In the place of `StepRunner._call`."""
    folder = runner.folder(step)
    argv = [tool, str(folder / 'config.py'), *arguments, '--check-images', 'none']
    if '--work-dir' not in arguments:
        argv += ['--work-dir', str(folder)]
    argv += ['--cfg-options', f'experiment_name={next(NAMES)}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', argv)
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
