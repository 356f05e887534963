"""What the command-line tools have in common."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmcr.errors import UserError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit status 1.

    Serves as a context manager and, called, as a decorator of `main`. Every
    other exception keeps its traceback: it is our fault, not the user's.
    """
    try:
        yield
    except UserError as error:
        print('error:', ' '.join(str(error).splitlines()), file=sys.stderr)
        raise SystemExit(1) from None
