"""Counts calls under way, so that a connector closes only after the last of them ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Drain:
    """Lets calls in until it is closed. For one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._is_closed = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @contextmanager
    def call(self) -> Iterator[bool]:
        """Count a call while it runs; yields False, and does not count it, if closed."""
        if self._is_closed:
            yield False
            return
        self._count += 1
        self._is_empty.clear()
        try:
            yield True
        finally:
            self._count -= 1
            if self._count == 0:
                self._is_empty.set()

    async def close(self) -> None:
        """Let no call in any more and wait until none is under way."""
        self._is_closed = True
        await self._is_empty.wait()
