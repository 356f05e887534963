"""Loggers kept quiet for a while."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger: logging.Logger, level: int) -> Iterator[None]:
    """What `logger` is told below `level` is dropped; afterwards it is as it was."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
