"""Where a search is, and when it will be done."""

import time
from datetime import timedelta

from mmengine.logging import MMLogger

INTERVAL = 10.0  # seconds between two lines within a round


class SearchProgress:
    """Logs the share of the work done and the time that the rest will take.

    Args:
        work: Of the whole search, in candidates scored on all of archval.
        known: How much of it an earlier run has done.
    """

    def __init__(self, work: float, known: float) -> None:
        self.work, self.known, self.done = work, known, 0.0
        self._start = self._last = time.monotonic()

    def scoring(self, part: float) -> None:
        """So much of the round that is under way is done."""
        if time.monotonic() - self._last >= INTERVAL:
            self._log(self.done + part)

    def finished(self, work: float) -> None:
        """A round of so much work is scored."""
        self.done += work
        self._log(self.done)

    def _log(self, done: float) -> None:
        self._last = time.monotonic()
        spent = self._last - self._start
        left = max(self.work - self.known - done, 0)
        eta = timedelta(seconds=round(spent / done * left)) if done else 'unknown'
        MMLogger.get_current_instance().info(
            f'Search [{self.known + done:.1f}/{self.work:.1f}]  eta: {eta}  '
            f'time per candidate: {spent / max(done, 1e-9):.2f} s'
        )
