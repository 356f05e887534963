"""Tools in processes of their own: started, shown, and stopped together."""

import fcntl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

from mmcr.errors import UserError

#: What of a tool's log says where it is.
SHOWN = ('Epoch(', 'Search [', 'Best architecture', 'going on')


class Processes:
    """The processes of one run, which has its work dir for itself.

    Args:
        work_dir: Made where missing.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self._running: list[subprocess.Popen] = []
        self._stopping = False
        self._starting = threading.Lock()  # of a process, against stopping

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps another run, and the processes that it left behind, out.

        Raises:
            UserError: There are some.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with (self.work_dir / '.lock').open('a') as self._lock:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f'Only one run may work in {self.work_dir}, but another one, or '
                    'a step that it left behind, does. Wait for it or end it, or name '
                    'another --work-dir.'
                ) from None
            yield

    def run(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        show: Callable[[str], None],
    ) -> None:
        """Runs a tool to its end.

        Args:
            command: Program and arguments.
            environment: All its variables.
            log: Gets all that it prints, after what is there.
            show: Gets a line of its progress every few seconds.

        Raises:
            UserError: It fails; with its own message where it has one.
        """
        last: deque[str] = deque(maxlen=20)
        shown = 0.0
        with (
            log.open('a', buffering=1) as file,
            self._start(command, environment) as process,
        ):
            for line in process.stdout:
                file.write(line)
                last.append(line.strip())
                if any(mark in line for mark in SHOWN) and time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    show(line.split(' - INFO - ')[-1].strip()[:110])
        if process.returncode:
            messages = [line for line in last if line.startswith('error:')]
            reason = (messages or list(last) or ['it printed nothing'])[-1]
            raise UserError(f'{log.parent.name} failed: {reason} (log: {log})')

    def stop(self) -> None:
        """Ends what runs and lets nothing more start."""
        with self._starting:
            self._stopping = True
            for process in self._running:
                process.terminate()

    def _start(self, command: list[str], environment: dict) -> subprocess.Popen:
        with self._starting:
            if self._stopping:
                raise CancelledError
            process = subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors='replace',
                pass_fds=[self._lock.fileno()],  # held for as long as it runs
            )
            self._running.append(process)
        return process
