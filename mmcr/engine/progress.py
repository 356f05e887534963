"""Where a search is, and when it will be done."""

import time
from datetime import timedelta

from mmengine.logging import MMLogger


class SearchProgress:
    """Logs the share of trials done and the time that the rest will take.

    Args:
        total: Number of trials of the whole search.
        known: How many of them an earlier run has scored.
        interval: Seconds between two lines at least.
    """

    def __init__(self, total: int, known: int, interval: float = 10.0) -> None:
        self.total = total
        self.known = known
        self.scored = 0
        self.interval = interval
        self._start = self._last = time.monotonic()

    def within_group(self, size: int, done: float) -> None:
        """Part `done` (0 to 1) of the next `size` trials is scored."""
        if time.monotonic() - self._last >= self.interval:
            self._log(self.scored + size * done)

    def finished(self, group: int) -> None:
        """One more group is scored."""
        self.scored += group
        self._log(self.scored)

    def _log(self, scored: float) -> None:
        self._last = time.monotonic()
        spent = self._last - self._start
        left = max(self.total - self.known - scored, 0)
        eta = timedelta(seconds=round(spent / scored * left)) if scored else 'unknown'
        MMLogger.get_current_instance().info(
            f'Search [{self.known + scored:.1f}/{self.total}]  eta: {eta}  '
            f'time per candidate: {spent / max(scored, 1e-9):.2f} s'
        )
