"""What the environment asks of the machine, and one message for what is missing."""

import contextlib
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED_GB = 4
# What the training of a detector imports; `mmcv.ops` is the compiled part.
MODULES = ('torch', 'mmengine', 'mmcv.ops', 'mmdet.datasets', 'mmdet.models')

NO_NETWORK = re.compile(
    'NewConnectionError|NameResolutionError|name resolution|ConnectTimeout|'
    'ReadTimeout|ProxyError|Network is unreachable|Connection refused'
)
OTHER_PYTHON = 'call make with BASE_PYTHON=/path/to/another/python3'


class EnvError(Exception):
    """Something the user can set right; the message says what and how."""


def last_lines(text, count):
    lines = [line for line in text.splitlines() if line.strip()]
    return '\n'.join(lines[-count:])


def dotted(version):
    return f'{version[0]}.{version[1]}'


def check_python(version):
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        raise EnvError(
            f'the environment needs Python {dotted(OLDEST)} to {dotted(NEWEST)}, but '
            f'{sys.executable} is {dotted(version)}: {OTHER_PYTHON}'
        )


def check_compiler(command):
    """Returns what `command --version` says, once it has compiled something."""
    try:
        version = subprocess.check_output([command, '--version'], text=True)
        trial = subprocess.run(
            [command, '-x', 'c++', '-std=c++17', '-fsyntax-only', '-'],
            input='#include <vector>\n',
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EnvError(
            f"mmcv's ops must be compiled, but there is no C++ compiler ({error}). "
            'Install one (Debian, Ubuntu: apt install g++) or name one in CXX'
        ) from None
    if trial.returncode:
        raise EnvError(
            f'the C++ compiler {command} does not compile C++17:\n'
            + last_lines(trial.stderr, 3)
        )
    return version.strip()


def check_headers(includes):
    if not any(Path(folder, 'Python.h').exists() for folder in includes):
        raise EnvError(
            "mmcv's ops must be compiled, but this Python has no Python.h. Install its "
            f'headers (Debian, Ubuntu: apt install python3-dev), or {OTHER_PYTHON}'
        )


def check_disk(folder, needed_gb=NEEDED_GB):
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < needed_gb:
        raise EnvError(
            f'the environment needs {needed_gb} GB of disk while it is made, but '
            f'{folder} has {free:.1f} GB left'
        )


def check_cuda(cuda, nvcc):
    if cuda and not nvcc:
        raise EnvError(
            "torch sees a GPU, but there is no nvcc to compile mmcv's ops for it. "
            f'Install the CUDA {cuda} toolkit, or use an environment that has mmcv '
            '(make ... PYTHON=/path/to/python), or stay on the CPU (export '
            'CUDA_VISIBLE_DEVICES=)'
        )


def check_modules(names):
    """Imports what mmcr needs into this very interpreter."""
    failures = []
    for name in names:
        try:
            # mmdet prints on import what optional things it did not find.
            with contextlib.redirect_stdout(None):
                importlib.import_module(name)
        # An incompatible pair of mm packages asserts, a library built for another
        # torch raises OSError: whatever it is, the user should read it.
        except Exception as error:
            text = last_lines(str(error), 1)
            failures.append(f'{name} ({type(error).__name__}: {text})')
    if failures:
        raise EnvError(
            '\n  '.join([f'{sys.executable} fails to import', *failures])
            + '\nmmcr needs these. Mend that environment, or leave PYTHON out: then '
            "make builds the repository's own"
        )


def explain(title, output):
    """What the user should know about a step that failed with `output`."""
    missing = re.search(r'No matching distribution found for (\S+)', output)
    if 'No space left on device' in output:
        return f'the disk is full ({title}). Make room; the same command continues'
    if 'ensurepip' in output:
        return (
            'this Python cannot make virtual environments. Install its venv module '
            '(Debian, Ubuntu: apt install python3-venv)'
        )
    if NO_NETWORK.search(output):
        return (
            f'the package index cannot be reached ({title}). Once the network is '
            'back, the same command continues'
        )
    if missing:
        return (
            f'the package index has no {missing.group(1)} for Python '
            f'{dotted(sys.version_info)} on this machine. Another Python may do: '
            + OTHER_PYTHON
        )
    return f'{title} failed:\n{last_lines(output, 12)}'
