"""Blocking code beside the event loop: what it gives back, and what happens when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from interlock.tools.apart import run_apart

_NAME: ContextVar[str] = ContextVar("name", default="nobody")


async def test_result_comes_back_from_another_thread() -> None:
    """The function sees the context of its caller."""
    _NAME.set("ann")

    name, thread = await run_apart(lambda: (_NAME.get(), threading.current_thread()))

    assert ("ann", True) == (name, thread.daemon)
    assert threading.current_thread() is not thread


async def test_what_it_raises_is_raised_where_it_is_awaited() -> None:
    """Nothing is lost in the thread."""

    def fail() -> None:
        raise KeyError("no such user")

    with pytest.raises(KeyError, match="no such user"):
        await run_apart(fail)


async def test_caller_that_gives_up_leaves_it_behind() -> None:
    """The function goes on, and its end disturbs nobody."""
    released, ended = threading.Event(), threading.Event()

    def hang() -> None:
        released.wait(30)
        ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_apart(hang)
    released.set()

    assert ended.wait(30)
