"""How a process ends itself by SIGKILL at some call; imports nothing heavy.

`watch` reads what it is to do from the variable CAMPAIGN_DEATH: that of a process which
`environment` has prepared, and of all that it starts.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

#: Functions of `os` that change files.
SYSTEM = (
    *('write', 'fsync', 'replace', 'truncate', 'ftruncate', 'open', 'rename'),
    *('unlink', 'remove'),
)
NEVER = sys.maxsize
ROOT = Path(__file__).parents[2]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_calls(at: int) -> Callable[[], int]:
    """Kills this process at such a call of mmcr's; returns what tells their number."""
    calls, root = 0, str(ROOT / 'mmcr')

    def count(frame, event, _) -> None:
        nonlocal calls
        if event in ('call', 'c_call') and frame.f_code.co_filename.startswith(root):
            calls += 1
            if calls >= at:
                die()

    sys.setprofile(count)
    return lambda: calls


def watch_system(way: str, at: int, share: float) -> Callable[[], int]:
    """Kills this process at such a call of `SYSTEM`; returns what tells their number.

    Args:
        way: 'before' or 'after' the call, or with 'half' of the data written.
        at: Number of the call.
        share: Of the data, for 'half'.
    """
    calls = 0

    def watched(name: str):
        original = getattr(os, name)

        def call(*args, **more):
            nonlocal calls
            calls += 1
            if calls < at:
                return original(*args, **more)
            if way == 'half' and name == 'write':
                original(args[0], args[1][: int(share * len(args[1]))])
            elif way == 'half' and name == 'fsync':
                _cut(args[0], share)
            elif way == 'after':
                original(*args, **more)
            return die()

        return call

    for name in SYSTEM:
        setattr(os, name, watched(name))
    return lambda: calls


def _cut(file, share: float) -> None:
    """Leaves so much of a file that was not renamed into its place yet."""
    number = file if isinstance(file, int) else file.fileno()
    if os.readlink(f'/proc/self/fd/{number}').endswith('.part'):
        os.truncate(number, int(share * os.fstat(number).st_size))


def environment(folder: Path, way: str, at: int, share: float) -> dict[str, str]:
    """Variables by which Python processes die so.

    Args:
        folder: Gets a ``sitecustomize.py``, by which Python begins.
    """
    folder.mkdir(exist_ok=True)
    (folder / 'sitecustomize.py').write_text(
        f'import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n'
        'import deaths\ndel sys.path[0]\ndeaths.watch()\n'
    )
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {'PYTHONPATH': path, 'CAMPAIGN_DEATH': f'{way},{at},{share}'}


def watch() -> None:
    """As the variable says."""
    way, at, share = os.environ['CAMPAIGN_DEATH'].split(',')
    if way == 'call':
        watch_calls(int(at))
    else:
        watch_system(way, int(at), float(share))
