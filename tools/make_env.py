#!/usr/bin/env python3
"""Makes `.venv`: everything mmcr runs on, in the versions of `requirements/`.

    python3 tools/make_env.py            # make it, continue it, or do nothing
    PYTHON tools/make_env.py --check     # is PYTHON an environment mmcr can use?

The one long step compiles mmcv's ops; its wheel is kept in the user's cache folder
for the next environment. Standard library only, and a syntax that an old Python reads.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / 'requirements'
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
# Empty before the venv is whole, then 'unfinished', in the end what it was made from.
STAMP = VENV / 'mmcr-stamp'
BUILD = ROOT / 'build'
LOG = BUILD / 'make_env.log'

PIP = (PYTHON, '-m', 'pip')
ALONE = ('--no-deps', '--no-build-isolation')
# What the training of a detector imports; `mmcv.ops` is the compiled part.
MODULES = ('torch', 'mmengine', 'mmcv.ops', 'mmdet.datasets', 'mmdet.models')

# `CFLAGS` takes the place of the interpreter's own flags: without the debug
# information of torch's headers the ops compile in less than half the time.
FLAGS = '-O2 -g0 -DNDEBUG -fwrapv -w'
# Most of what the compiler reads, for every file of the ops; gcc takes it precompiled
# where the flags are the same.
HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'
HEADER_FLAGS = (
    '-fPIC -std=c++17 -DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=_ext'
)
# What a compiled wheel depends on, asked of the interpreter that has torch.
PROBE = """
import json, platform, sys, sysconfig, torch
from torch.utils import cpp_extension
gpu = torch.cuda.is_available()
print(json.dumps(dict(
    torch=torch.__version__,
    python=sys.implementation.cache_tag,
    platform=[sysconfig.get_platform(), *platform.libc_ver()],
    cuda=torch.version.cuda if gpu else None,
    gpus=sorted({torch.cuda.get_device_capability(i)
                 for i in range(torch.cuda.device_count())}) if gpu else [],
    nvcc=cpp_extension.CUDA_HOME if gpu else None,
    includes=[*cpp_extension.include_paths(), sysconfig.get_paths()['include']],
)))
"""

OTHER_PYTHON = 'call make with BASE_PYTHON=/path/to/another/python3'
REASONS = {  # what a failed step printed: what it means
    'No space left on device': 'the disk is full; make room (4 GB in all)',
    'Retrying (Retry(': 'the package index cannot be reached',
    'No matching distribution': f'none for this Python; {OTHER_PYTHON}',
    'ensurepip': 'this Python has no venv module (Debian: apt install python3-venv)',
    'Python.h: No such': 'this Python has no headers (Debian: apt install python3-dev)',
    'CUDA_HOME environment variable is not set': 'torch sees a GPU, but there is no '
    'nvcc. Install the CUDA toolkit, or stay on the CPU (export CUDA_VISIBLE_DEVICES=)',
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', nargs='*', metavar='MODULE', help='import these too')
    modules = parser.parse_args().check
    # A killed `make` takes the compilers with it, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if modules is None:
            make()
        else:
            check_imports([*MODULES, *modules])
    except KeyboardInterrupt:
        fail('interrupted; the same command continues')


def fail(message):
    sys.exit(f'make_env: {message}')


def check_imports(names):
    """Imports what mmcr needs into this very interpreter."""
    failures = []
    for name in names:
        try:
            with contextlib.redirect_stdout(None):  # mmdet tells what it did not find
                importlib.import_module(name)
        except Exception as error:  # mm packages assert, libraries raise OSError
            failures.append(f'\n  {name} ({type(error).__name__}: {error})')
    if failures:
        fail(
            f'{sys.executable} fails to import{"".join(failures)}\nmmcr needs these. '
            'Mend that environment, or leave PYTHON out: then make builds its own'
        )


def wanted():
    digest = hashlib.sha256(str(ROOT).encode())
    for path in [Path(__file__), *sorted(PINS.glob('*.txt'))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def make():
    """Makes the environment, or goes on: pip and ninja find what is there."""
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted():
        return
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        version = sys.version.split()[0]
        fail(f'Python must be 3.10 to 3.13, but got {version}; {OTHER_PYTHON}')
    compiler = os.environ.get('CXX', 'c++')
    if not shutil.which(compiler):
        fail(
            f"mmcv's ops must be compiled, but there is no C++ compiler {compiler}. "
            'Install one (Debian: apt install g++) or name one in CXX'
        )
    if VENV.exists() and any(VENV.iterdir()) and not STAMP.exists():
        fail(
            f'{VENV} was not made by this script. Move it away, or use it as it is: '
            'make ... PYTHON=.venv/bin/python'
        )
    BUILD.mkdir(exist_ok=True)
    print('Making .venv: some minutes if mmcv has to be compiled, else one.')
    print(f'What the steps say is in {LOG}.', flush=True)
    with LOG.open('ab') as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # one at a time; the steps hold it too
        if not PYTHON.exists() or not STAMP.read_text():
            shutil.rmtree(VENV, ignore_errors=True)
            VENV.mkdir()
            STAMP.touch()
            step(log, 'venv', sys.executable, '-m', 'venv', VENV)
        STAMP.write_text('unfinished')
        step(log, 'torch', *PIP, 'install', '-r', 'torch.txt')
        packages = ('-r', 'build.txt', '-r', 'runtime.txt', '-r', 'tests.txt')
        step(log, 'packages', *PIP, 'install', *packages)
        wheel = mmcv_wheel(log, compiler)
        step(log, 'mmcv', *PIP, 'install', '--no-deps', '--force-reinstall', wheel)
        step(log, 'mmdet', *PIP, 'install', *ALONE, '-r', 'mm.txt')
        step(log, 'mmcr', *PIP, 'install', *ALONE, '-e', ROOT)
        step(log, 'imports', PYTHON, Path(__file__).resolve(), '--check')
        STAMP.write_text(wanted())


def mmcv_wheel(log, compiler):
    """Returns the wheel of mmcv, from the cache or compiled and put there."""
    pins = (PINS / 'mm.txt').read_text()
    version = re.search(r'^onedl-mmcv==(\S+)', pins, re.MULTILINE).group(1)
    says = subprocess.check_output([compiler, '--version'], text=True).strip()
    facts = json.loads(subprocess.check_output([str(PYTHON), '-c', PROBE], text=True))
    includes = facts.pop('includes')
    gpu_list = os.environ.get('TORCH_CUDA_ARCH_LIST')
    facts.update(mmcv=version, compiler=[compiler, says])
    facts.update(flags=FLAGS, gpu_list=gpu_list)
    text = json.dumps(facts, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    kept = cache / 'mmcr' / 'wheels' / key
    for wheel in kept.glob('*.whl'):
        print(f'mmcv: compiled before, kept in {kept}')
        return wheel

    folder = BUILD / f'mmcv-{key}'
    package = ('--no-binary', 'onedl-mmcv', f'onedl-mmcv=={version}')
    step(log, 'mmcv source', *PIP, 'download', *ALONE, '-d', folder, *package)
    with tarfile.open(next(folder.glob('*.tar.gz'))) as archive:
        # inside of the folder, as plain files; an older Python has no such filter
        archive.extraction_filter = getattr(tarfile, 'data_filter', lambda m, _: m)
        archive.extractall(folder)  # with the files' times: ninja goes on where it was
    source = folder / f'onedl_mmcv-{version}'
    header = source / HEADER
    precompiled = header.with_name(f'{header.name}.gch')
    if not facts['cuda'] and 'clang' not in says and not precompiled.exists():
        part = header.with_name('part.gch')
        flags = [*FLAGS.split(), *HEADER_FLAGS.split()]
        flags += [f'-I{path}' for path in [*includes, header.parent]]
        what = ('-x', 'c++-header', header, '-o', part)
        step(log, 'mmcv header', compiler, *flags, *what)
        os.replace(part, precompiled)
    variables = dict(
        CFLAGS=FLAGS,
        MAX_JOBS=os.environ.get('MAX_JOBS') or str(len(os.sched_getaffinity(0))),
        MMCV_WITH_OPS='1',
        FORCE_CUDA='1' if facts['cuda'] else '0',
    )
    # pip's own cache would return what was built from this path for another torch
    options = (*ALONE, '-v', '--no-cache-dir', '-w', folder)
    step(log, "mmcv's ops", *PIP, 'wheel', *options, source, variables=variables)
    built = next(folder.glob('*.whl'))
    kept.mkdir(parents=True, exist_ok=True)
    part = kept / f'part-{os.getpid()}'
    shutil.copyfile(built, part)
    os.replace(part, kept / built.name)  # whole, or not there
    shutil.rmtree(folder)
    return kept / built.name


def step(log, title, *command, variables=None):
    """Runs a command with its output in the log; says why it failed."""
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_USER='0')
    env['PIP_CONSTRAINT'] = str(PINS / 'constraints.txt')
    for name in ('PYTHONPATH', 'PYTHONHOME', 'CXXFLAGS', 'CPPFLAGS'):
        env.pop(name, None)  # they mislead pip or the compiler
    print(f'{title} ...', end=' ', flush=True)
    begin, start = time.monotonic(), log.tell()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**env, **(variables or {})},
        cwd=PINS,
        start_new_session=True,
    )
    try:
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)  # the compilers too
        process.wait()
        raise
    print(f'{time.monotonic() - begin:.0f} s')
    if status:
        output = LOG.read_bytes()[start:].decode(errors='replace').strip()
        last = '\n'.join(output.splitlines()[-12:])
        reasons = [why for what, why in REASONS.items() if what in output]
        reason = (reasons or [last])[0]
        fail(f'{title} failed: {reason}\nThe same command continues. Output: {LOG}')


if __name__ == '__main__':
    main()
