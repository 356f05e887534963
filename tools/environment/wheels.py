"""The wheel of mmcv's compiled ops: built once, then kept in the user's cache."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from environment.checks import check_cuda, check_headers

# `CFLAGS` takes the place of the interpreter's own flags: without the debug
# information of torch's headers the ops compile in less than half the time.
FLAGS = '-O2 -g0 -DNDEBUG -fwrapv -w'
# Most of what the compiler reads, for every single file of the ops.
HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'
HEADER_FLAGS = (
    '-fPIC -std=c++17 -DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=_ext'
)

# Run by the environment's own interpreter, the only one that has torch.
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


def cache_folder():
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.join('~', '.cache')
    return Path(cache).expanduser() / 'mmcr' / 'wheels'


def cache_key(facts):
    """A name for all that a compiled wheel depends on."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_wheel(folder):
    """Returns the folder's wheel, or None if there is none that is whole."""
    for wheel in sorted(folder.glob('*.whl')):
        try:
            with zipfile.ZipFile(str(wheel)) as archive:
                if archive.testzip() is None:
                    return wheel
        except (zipfile.BadZipFile, OSError):
            continue
    return None


def store_wheel(wheel, folder, facts):
    """Copies the wheel into the cache; interrupted, it leaves no wheel there."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f'part-{os.getpid()}'
    shutil.copyfile(str(wheel), str(part))
    os.replace(str(part), str(folder / wheel.name))
    # For people; nothing reads it.
    (folder / 'made_for.json').write_text(json.dumps(facts, indent=1))
    return folder / wheel.name


class MmcvBuild:
    """Builds mmcv's wheel in `folder`, and continues a build that stopped there.

    Args:
        version: Version of onedl-mmcv.
        python: The interpreter to build with and for.
        compiler: The command of the C++ compiler and what it says of its version.
        folder: Where the source is unpacked and compiled.
        run: Called with the title, the command and further environment variables
            of a step.
    """

    def __init__(self, version, python, compiler, folder, run):
        self.version = version
        self.python = python
        self.compiler, compiler_version = compiler
        self.folder = folder
        self.run = run
        answer = subprocess.check_output([str(python), '-c', PROBE], text=True)
        self.facts = json.loads(answer)
        self.includes = self.facts.pop('includes')
        self.facts.update(
            mmcv=version,
            compiler=[self.compiler, compiler_version],
            flags=FLAGS,
            gpu_list=os.environ.get('TORCH_CUDA_ARCH_LIST'),
        )

    def wheel(self):
        """Returns the path of the wheel, from the cache if it is there."""
        kept = cache_folder() / cache_key(self.facts)
        wheel = find_wheel(kept)
        if wheel:
            print(f'mmcv: compiled before, kept in {kept}', flush=True)
            return wheel
        check_cuda(self.facts['cuda'], self.facts['nvcc'])
        check_headers(self.includes)
        source = self.source()
        self.precompile(source / HEADER)
        return store_wheel(self.compile(source), kept, self.facts)

    def source(self):
        source = self.folder / f'onedl_mmcv-{self.version}'
        if not source.exists():
            fresh = self.folder / 'unpacked'
            shutil.rmtree(str(fresh), ignore_errors=True)
            fresh.mkdir(parents=True)
            options = ('--no-deps', '--no-build-isolation', '--no-binary', 'onedl-mmcv')
            pip = [self.python, '-m', 'pip', 'download', *options, '-d', fresh]
            self.run('mmcv source', [*pip, f'onedl-mmcv=={self.version}'])
            with tarfile.open(str(next(fresh.glob('*.tar.gz')))) as archive:
                archive.extractall(str(fresh))
            os.replace(str(fresh / source.name), str(source))
        return source

    def precompile(self, header):
        """Compiles the common header once; gcc takes it wherever the flags agree."""
        compiled = header.with_name(header.name + '.gch')
        uses_gcc = 'clang' not in self.facts['compiler'][1]
        if compiled.exists() or self.facts['cuda'] or not uses_gcc:
            return
        part = header.with_name('part.gch')
        command = [self.compiler, *FLAGS.split(), *HEADER_FLAGS.split()]
        command += [f'-I{folder}' for folder in [*self.includes, header.parent]]
        self.run('mmcv header', [*command, '-x', 'c++-header', header, '-o', part])
        os.replace(str(part), str(compiled))

    def compile(self, source):
        jobs = os.environ.get('MAX_JOBS') or str(len(os.sched_getaffinity(0)))
        wheels = self.folder / 'wheels'
        # pip's own cache knows a folder's wheel by its path only: it would return one
        # that was built there for another torch.
        options = ('-v', '--no-cache-dir', '--no-deps', '--no-build-isolation')
        self.run(
            "mmcv's ops",
            [self.python, '-m', 'pip', 'wheel', *options, '-w', wheels, source],
            CFLAGS=FLAGS,
            MAX_JOBS=jobs,
            MMCV_WITH_OPS='1',
            FORCE_CUDA='1' if self.facts['cuda'] else '0',
        )
        return next(wheels.glob('*.whl'))
