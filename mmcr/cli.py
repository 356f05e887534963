"""What the command-line tools have in common."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmcr.errors import UserError

# What gloo, NCCL and the store of torch.distributed say of a process that is gone.
CONNECTION = re.compile(r'connection|broken pipe|remote process|timed out', re.I)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit status 1.

    So too, in a distributed run, where another process is gone that this one
    exchanges something with. Serves as a context manager and, called, as a
    decorator of `main`. Every other exception keeps its traceback: it is our
    fault, not the user's.
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
    print('error:', ' '.join(message.splitlines()), file=sys.stderr)
    raise SystemExit(1)


def _connection_lost(error: RuntimeError) -> bool:
    modules = (
        frame.f_globals.get('__name__', '')
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    return bool(CONNECTION.search(str(error))) and any(
        module.startswith('torch.distributed') for module in modules
    )
