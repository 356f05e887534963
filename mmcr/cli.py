"""What the command-line tools have in common."""

import gc
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from mmcr.errors import UserError

# What gloo, NCCL and the store of torch.distributed say of a process that is gone.
CONNECTION = re.compile(r'connection|broken pipe|remote process|timed out', re.I)


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
    if not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_backend() != 'gloo':
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
