"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading

START_US = 1_700_000_000_000_000
"""Where a manual clock starts unless told otherwise: 14 November 2023, 22:13:20 UTC."""


class ManualClock:
    """Tells the time that it was last set to; safe to read and move from several threads."""

    def __init__(self, start_us: int = START_US) -> None:
        self._now_us = start_us
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the current reading in microseconds."""
        with self._lock:
            return self._now_us

    def advance(self, seconds: float) -> int:
        """Move the clock on and return the new reading in microseconds."""
        with self._lock:
            self._now_us += round(seconds * 1_000_000)
            return self._now_us
