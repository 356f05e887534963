"""The command ``mmcr``, and how every tool ends: by a message or by its work."""

import argparse
import gc
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
DEMOS = {'demo': 'shapes.py', 'demo-detnas': 'shapes_detnas.py'}
SHAPES = '--out-dir data/shapes --train 400 --val 0 --test 100 --image-size 192'

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
            _run_tool('dataset_converters/make_shapes', SHAPES.split())
            config = f'{configs}demo/{DEMOS[args.command]}'
            where = ('--work-dir', f'work_dirs/{args.command}')
            _run_tool('reallocate', [config, *where, *arguments])
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


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit status 1.

    So too, in a distributed run, where another process is gone that this one
    exchanges something with. Serves as a context manager and, called, as a
    decorator of `main`. Every other exception keeps its traceback: it is our
    fault, not the user's. Whatever happens, a group of gloo processes is left in
    the end.
    """
    try:
        yield
    except UserError as error:
        message = str(error)
    except RuntimeError as error:
        if not _connection_lost(error):
            raise
        message = (
            'Another process of this run has ended or cannot be reached any more, '
            f'so this one ends too; what happened to that one is the cause. ({error})'
        )
    else:
        return
    finally:
        leave_process_group()
    print('error:', ' '.join(message.splitlines()), file=sys.stderr)
    raise SystemExit(1)


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
