"""Links: one session for many calls, opened anew when lost, not hammered when away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from mcp import ClientSession

from interlock.domain.errors import UnavailableError
from interlock.tools.connectors.mcp.link import FIRST_PAUSE_S, LONGEST_PAUSE_S, Link


class Far:
    """A server that is there or not; it counts how often it was opened and left."""

    def __init__(self) -> None:
        self.is_there = True
        self.opened = 0
        self.left = 0
        self.entered_by: list[str] = []
        self.over: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def open(self, on_over: Callable[[], None]) -> AsyncIterator[ClientSession]:
        """Open a session, which is only passed through here."""
        self.opened += 1
        self.over = on_over
        if not self.is_there:
            raise OSError("nobody there")
        task = asyncio.current_task()
        try:
            yield cast("ClientSession", object())
        finally:
            self.left += 1
            assert asyncio.current_task() is task


class Monotonic:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def far() -> Far:
    """A server that is there."""
    return Far()


async def test_many_calls_share_one_session_and_its_task(far: Far) -> None:
    """Whoever comes first, the session is entered and left by a task of its own."""
    link = Link("far", far.open)

    async def use() -> ClientSession:
        async with link.session(within_s=5) as session:
            return session

    sessions = await asyncio.gather(*(use() for _ in range(5)))
    await link.aclose()

    assert 1 == len(set(map(id, sessions)))
    assert (1, 1) == (far.opened, far.left)


async def test_session_that_is_over_is_opened_again(far: Far) -> None:
    """The next call after a loss, or after a drop, gets another session."""
    link = Link("far", far.open)

    async with link.session(within_s=5):
        far.over()
    async with link.session(within_s=5):
        link.drop()
    async with link.session(within_s=5):
        assert 3 == far.opened

    await link.aclose()


async def test_server_that_is_away_is_not_hammered(far: Far) -> None:
    """After a failure there is a pause, which doubles up to its bound and ends with success."""
    far.is_there = False
    monotonic = Monotonic()
    link = Link("far", far.open, monotonic=monotonic)

    async def fails() -> str:
        with pytest.raises(UnavailableError) as caught:
            async with link.session(within_s=5):
                pass
        return caught.value.message

    assert "nobody there" in await fails()
    assert "tried again in" in await fails()
    assert 1 == far.opened
    pauses = [FIRST_PAUSE_S * 2.0**n for n in range(1, 6)] + [LONGEST_PAUSE_S] * 2
    for count, pause_s in enumerate(pauses, start=1):
        monotonic.now_s += pause_s - 0.01
        await fails()
        assert count == far.opened
        monotonic.now_s += 0.01
        await fails()
    far.is_there = True
    monotonic.now_s += LONGEST_PAUSE_S
    async with link.session(within_s=5):
        pass
    await link.aclose()


async def test_opening_that_takes_too_long_fails_the_call_and_goes_on() -> None:
    """A call waits no longer than it may; the session that opens later serves the next."""
    opened = asyncio.Event()

    @asynccontextmanager
    async def slowly(_on_over: Callable[[], None]) -> AsyncIterator[ClientSession]:
        await opened.wait()
        yield cast("ClientSession", object())

    link = Link("far", slowly)

    with pytest.raises(UnavailableError, match="within"):
        async with link.session(within_s=0.01):
            pass
    opened.set()
    async with link.session(within_s=5) as session:
        assert session is not None
    await link.aclose()


async def test_closed_link_lends_nothing(far: Far) -> None:
    """After closing there is no session, and none is opened."""
    link = Link("far", far.open)

    await link.aclose()

    with pytest.raises(UnavailableError, match="closed"):
        async with link.session(within_s=5):
            pass
    assert 0 == far.opened
