"""A work dir: for one run at a time, and for nothing else.

Of a single training or search: `mmcr.engine.outputs`; of a file: `mmcr.files`.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmcr.errors import UserError
from mmcr.files import made_folder


@contextmanager
def alone(work_dir: Path) -> Iterator[int]:
    """Keeps another run, and processes that it left behind, out of the work dir.

    Yields:
        A file descriptor; who holds it open is the one in there.

    Raises:
        UserError: There is another.
        OSError: The folder cannot be made or written to.
    """
    path = work_dir / '.lock'
    with made_folder(work_dir), path.open('a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'Only one run may work in {work_dir}, but another one, or a step that '
                f'it left behind, does. Wait for it or end it, or name another '
                f'--work-dir.'
            ) from None
        try:
            yield lock.fileno()
        except Exception:
            if list(work_dir.iterdir()) == [path]:  # it was refused before anything
                path.unlink()
            raise


def check_place(
    work_dir: Path, config: Path, names: Sequence[str], steps: Sequence[str] = ()
) -> None:
    """Checks that a work writes over nothing that is not its own.

    Args:
        work_dir: Of the work.
        config: That it starts from.
        names: Of files and folders that it writes in the work dir.
        steps: Names of further folders, each of which is checked by itself.

    Raises:
        UserError: The work dir has such a file of somebody else, or the config lies
            where the work writes.
    """
    inside = [work_dir.resolve() / name for name in (*names, *steps)]
    if any(config.resolve().is_relative_to(path) for path in inside):
        raise UserError(
            f'A work starts from a config outside of what it writes, but {config} lies '
            f'in {work_dir}. Name another --work-dir, or give the config that the '
            f'work dir was made from.'
        )
    own = any((work_dir / name).exists() for name in ('.lock', 'configs.json'))
    taken = [name for name in names if os.path.lexists(work_dir / name)]
    if taken and not own:
        raise UserError(
            f'A work dir must be new or one that this tool has made, so that nothing '
            f'is overwritten, but {work_dir} has {", ".join(taken)} of something else. '
            f'Name another --work-dir.'
        )
