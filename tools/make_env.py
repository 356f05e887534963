#!/usr/bin/env python3
"""Makes `.venv`: everything mmcr runs on, in the versions of `requirements/`.

    python3 tools/make_env.py            # make it, continue it, or do nothing
    PYTHON tools/make_env.py --check     # is PYTHON an environment mmcr can use?

The one long step compiles mmcv's ops. Its wheel is kept in the user's cache
folder, so that the next environment on the same machine takes it from there.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from environment.checks import (
    MODULES,
    EnvError,
    check_compiler,
    check_disk,
    check_modules,
    check_python,
)
from environment.steps import minutes, run
from environment.wheels import MmcvBuild

ROOT = Path(__file__).resolve().parents[1]


class Environment:
    """The environment of one repository.

    Every step of making it may be repeated: pip finds what is installed, ninja what
    is compiled. So one that was interrupted is continued by making it again.
    """

    def __init__(self, root):
        self.root = root
        self.requirements = root / 'requirements'
        self.venv = root / '.venv'
        self.python = self.venv / 'bin' / 'python'
        # Which repository the folder was made for: a moved one does not work.
        self.owner = self.venv / 'mmcr-owner'
        self.stamp = self.venv / 'mmcr-stamp'
        self.log = self.venv / 'make_env.log'

    def wanted(self):
        """What the stamp of the finished environment says."""
        digest = hashlib.sha256(str(self.root).encode())
        scripts = (self.root / 'tools').glob('environment/*.py')
        pins = self.requirements.glob('*.txt')
        for path in [self.root / 'tools/make_env.py', *sorted(scripts), *sorted(pins)]:
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def finished(self):
        return (
            self.python.exists()
            and self.stamp.exists()
            and self.stamp.read_text() == self.wanted()
        )

    def make(self):
        """Makes what is not there yet; an `EnvError` says why it cannot."""
        if self.finished():
            return
        check_python(sys.version_info)
        compiler = os.environ.get('CXX', 'c++')
        compiler = (compiler, check_compiler(compiler))
        with self.lock():
            if self.finished():
                return
            begin = time.monotonic()
            print('Making .venv. The first one on a machine takes some minutes, most')
            print('of them to compile mmcv; the next one does not compile again.')
            self.create()
            self.install_everything(compiler)
            shutil.rmtree(str(self.venv / 'build'), ignore_errors=True)
            self.stamp.write_text(self.wanted())
            print(f'.venv is ready after {minutes(time.monotonic() - begin)}.')

    @contextlib.contextmanager
    def lock(self):
        """Lets one process at a time work on the environment."""
        if self.venv.exists() and any(self.venv.iterdir()) and not self.owner.exists():
            raise EnvError(
                f'{self.venv} was not made by this script. Move it away, or use it '
                'as it is: make ... PYTHON=.venv/bin/python'
            )
        self.venv.mkdir(exist_ok=True)
        with open(str(self.owner), 'a') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print('Waiting for another process that is making .venv', flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            os.set_inheritable(file.fileno(), True)
            yield

    def create(self):
        """Makes an empty environment, unless there is one that works here."""
        is_ours = self.owner.read_text() == str(self.root) and self.python.exists()
        pip = [str(self.python), '-m', 'pip', '--version']
        if is_ours and not subprocess.call(pip, stdout=subprocess.DEVNULL):
            return
        for path in self.venv.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            elif path != self.owner:
                path.unlink()
        check_disk(self.venv)
        self.step('venv', [sys.executable, '-m', 'venv', self.venv])
        self.owner.write_text(str(self.root))

    def install_everything(self, compiler):
        pins = (self.requirements / 'mm.txt').read_text()
        mmcv = re.search(r'^onedl-mmcv==(\S+)', pins, re.MULTILINE).group(1)
        self.install('torch', '-r', 'torch.txt')
        packages = ('-r', 'build.txt', '-r', 'runtime.txt', '-r', 'tests.txt')
        self.install('packages', *packages)
        build = MmcvBuild(mmcv, self.python, compiler, self.venv / 'build', self.step)
        self.install('mmcv', '--no-deps', '--force-reinstall', build.wheel())
        alone = ('--no-deps', '--no-build-isolation')
        self.install('mmdet', *alone, '-r', 'mm.txt')
        self.install('mmcr', *alone, '-e', self.root)
        self.step('imports', [self.python, self.root / 'tools/make_env.py', '--check'])

    def install(self, title, *arguments):
        pip = [self.python, '-m', 'pip', 'install', '-c', 'constraints.txt']
        self.step(title, [*pip, *arguments])

    def step(self, title, command, **variables):
        """Runs a command with the user's variables, less those that mislead pip."""
        env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_USER='0')
        for name in ('PYTHONPATH', 'PYTHONHOME', 'CXXFLAGS', 'CPPFLAGS'):
            env.pop(name, None)
        run(title, command, self.log, {**env, **variables}, cwd=self.requirements)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--check',
        nargs='*',
        metavar='MODULE',
        help='only see whether this interpreter imports what mmcr needs, and MODULE',
    )
    modules = parser.parse_args().check
    # A killed `make` must take the compilers with it, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if modules is None:
            Environment(ROOT).make()
        else:
            check_modules([*MODULES, *modules])
    except EnvError as error:
        sys.exit(f'make_env: {error}')
    except KeyboardInterrupt:
        sys.exit('make_env: interrupted; the same command continues')


if __name__ == '__main__':
    main()
