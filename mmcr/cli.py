"""The command ``mmcr``, and how every tool ends: by a message or by its work."""

import argparse
import errno
import gc
import os
import re
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmcr import __version__
from mmcr.errors import UserError

# Configs and tools: links in a checkout, files in a wheel.
MIM = Path(__file__).parent / '.mim'

COMMANDS = {
    'reallocate': 'search a better backbone for a detector of yours and train it',
    'train': 'train a detector or a supernet',
    'search': 'search a trained supernet',
    'test': 'test a trained detector',
    'demo': 'run reallocate on a small data set, into work_dirs/demo',
    'demo-detnas': 'the same by DetNAS, into work_dirs/demo-detnas',
}
# By command: the config, and what make_shapes.py draws for it.
DEMOS = {
    'demo': (
        'fcos_r101.py',
        '--out-dir data/shapes128 --train 1000 --val 0 --test 500 --image-size 128',
    ),
    'demo-detnas': (
        'shapes_detnas.py',
        '--out-dir data/shapes --train 400 --val 0 --test 100 --image-size 192',
    ),
}
EVIDENCE = "docs/evidence.md of mmcr's repository has it under other master seeds."

STACK = ('torch', 'mmengine', 'mmcv', 'mmdet', 'numpy', 'cv2')
INSTALL = """\
error: {error}
mmcr {command} runs on torch, mmengine, mmcv (with its compiled ops) and mmdet, which
mmcr does not install by itself. Install them in this order (docs/installation.md has
the details, a CPU build of torch and prebuilt mmcv among them):
  pip install torch
  pip install ninja psutil packaging wheel hatchling 'setuptools<81' onedl-mmengine
  pip install --no-build-isolation onedl-mmcv onedl-mmdetection"""

# What gloo, NCCL and the store of torch.distributed say of a process that is gone.
CONNECTION = re.compile(r'connection|broken pipe|remote process|timed out', re.I)
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory", re.I)

#: What somebody can do about an error of the system; others are reported without.
REMEDIES = {
    errno.ENOENT: 'Correct the path, or make what is missing there',
    errno.EEXIST: 'Name another path, or move away what is there',
    errno.EISDIR: 'Name a file, not a folder',
    errno.ENOTDIR: 'Name a path of which every part but the last is a folder',
    errno.ENAMETOOLONG: 'Name a shorter path',
    errno.ELOOP: 'Mend that link, which leads to itself',
    errno.EACCES: 'Name a place that this user may use, or change its permissions',
    errno.EPERM: 'Name a place that this user may use, or change its permissions',
    errno.EROFS: 'Name a place that can be written to',
    errno.ENOSPC: 'Make room there; the same command then goes on',
    errno.EDQUOT: 'Make room there; the same command then goes on',
    errno.EFBIG: 'Raise the limit of how large a file may be (ulimit -f)',
    errno.EMFILE: 'Raise the limit of open files (ulimit -n), or lower num_workers',
    errno.ENFILE: 'Close other programs, or lower num_workers',
    errno.ENOMEM: 'Free memory, or lower batch_size or num_workers',
    errno.EIO: 'Look after that disk',
    errno.ESTALE: 'Mount that file system again',
    errno.EINVAL: 'Name another place',
}


def main() -> None:
    """Runs a tool of ``tools/`` by its name.

    ``mmcr::`` at the beginning of an argument is the folder of mmcr's configs.
    """
    listed = '\n'.join(f'  {name:13}{text}' for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='mmcr',
        description="Decides where a detector's backbone spends its computation.",
        epilog=f'commands:\n{listed}\n\n"mmcr COMMAND --help" lists its arguments.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmcr {__version__}')
    parser.add_argument('command', choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument('arguments', nargs='...', help=argparse.SUPPRESS)
    args = parser.parse_args()
    configs = f'{MIM}/configs/'
    arguments = [re.sub('^mmcr::', configs, argument) for argument in args.arguments]
    try:
        if args.command in DEMOS:
            config, shapes = DEMOS[args.command]
            _run_tool('dataset_converters/make_shapes', shapes.split())
            where = ('--work-dir', f'work_dirs/{args.command}')
            _run_tool('reallocate', [f'{configs}demo/{config}', *where, *arguments])
            if args.command == 'demo':
                print(EVIDENCE)
        else:
            _run_tool(args.command, arguments)
    except ModuleNotFoundError as error:
        if str(error.name).partition('.')[0] not in STACK:
            raise
        sys.exit(INSTALL.format(error=error, command=args.command))


def _run_tool(name: str, arguments: list[str]) -> None:
    path = str(MIM / 'tools' / f'{name}.py')
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name='__main__')


def place(text: str) -> str:
    """A path as an argument; an empty one would be the current folder or the default.

    What may be written there: `mmcr.files.check_output`.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError('it must name a path, but is empty')
    return text


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit status 1.

    So too what the system says of a file, a disk or the memory; what mmengine and
    mmdet say of a config that they cannot build; and, in a distributed run, that
    another process is gone. Serves as a context manager and, called, as a decorator
    of `main`. Every other exception keeps its traceback: it is our fault, not the
    user's; ``python -X dev`` shows those of the others too. Whatever happens, a group
    of gloo processes is left in the end.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files may hold any bytes
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    try:
        yield
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        if sys.flags.dev_mode:
            traceback.print_exc()
    else:
        return
    finally:
        leave_process_group()
    print('error:', ' '.join(message.splitlines()), file=sys.stderr)
    raise SystemExit(1)


def message_of(error: Exception) -> str | None:
    """What to tell of an error; ``None`` where it is a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, RuntimeError) and _connection_lost(error):
        return (
            'Another process of this run has ended or cannot be reached any more, '
            f'so this one ends too; what happened to that one is the cause. ({error})'
        )
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RuntimeError) and str(error).startswith('Symlink loop'):
        return f'{error}. {REMEDIES[errno.ELOOP]}.'  # pathlib's, before Python 3.13
    if isinstance(error, ValueError) and str(error) == 'embedded null byte':
        return 'A path must not hold a null byte, but one that was given does.'
    if isinstance(error, UnicodeEncodeError) and 'surrogates' in error.reason:
        return (
            f'Names of files and texts must be UTF-8, but {error.object[:200]!r} is '
            f'none. Rename it.'
        )
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return (
            f'The memory must hold the networks and a batch, but is too small: '
            f'{str(error) or "the system gives no more"}. Lower batch_size or the size '
            f'of images, or use a device with more.'
        )
    registry = sys.modules.get('mmcr.registry')
    return registry and registry.config_fault(error)


def _of_system(error: OSError) -> str | None:
    """What a file, a disk or the system's limits have to do with it."""
    if error.errno is None:  # of a library, or what was a data loader's worker's
        *_, last = str(error).strip().splitlines() or ['no reason is given']
        return f'A file or an address cannot be read ({type(error).__name__}): {last}'
    if error.filename is None and error.errno not in REMEDIES:
        return None
    where = '' if error.filename is None else f'{os.fsdecode(error.filename)}: '
    remedy = REMEDIES.get(error.errno, 'Name another path')
    return f'{where}{error.strerror or error}. {remedy}.'


@contextmanager
def resumable() -> Iterator[None]:
    """Ends by SIGTERM as by Ctrl-C: with the word that the same command goes on.

    The processes that it runs end with it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit('stopped; the same command goes on from here')


def leave_process_group() -> None:
    """Ends gloo's part in this process before the interpreter's own end.

    Threads of gloo free the tensors of the last exchange. In a process that ends
    right after it, they find no interpreter any more to free them with, and the
    process aborts (SIGABRT) with all its work done; seen in one of four exits
    with torch 2.13.
    """
    distributed = sys.modules.get('torch.distributed')
    if distributed is None or not distributed.is_available():
        return
    if not distributed.is_initialized() or distributed.get_backend() != 'gloo':
        return
    gc.collect()  # a model's wrapper refers to the group
    distributed.destroy_process_group()
    time.sleep(0.1)  # DDP keeps a group and its threads: they get their turn here


def _connection_lost(error: RuntimeError) -> bool:
    modules = (
        frame.f_globals.get('__name__', '')
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    return bool(CONNECTION.search(str(error))) and any(
        module.startswith('torch.distributed') for module in modules
    )


if __name__ == '__main__':
    main()
