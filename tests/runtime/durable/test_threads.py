"""The threads of a worker: that they end, whatever hangs."""

from __future__ import annotations

import asyncio
import threading

from interlock.runtime.durable.threads import LoopThread


def test_stop_waits_for_no_thread_that_hangs() -> None:
    """A worker ends in order while some code of others still blocks a thread of its loop."""
    loop, has_begun, released = LoopThread("interlock-test"), threading.Event(), threading.Event()

    def hang() -> None:
        has_begun.set()
        released.wait(30)

    async def leave() -> None:
        _ = asyncio.get_running_loop().run_in_executor(None, hang)

    loop.start()
    loop.call(leave())
    has_begun.wait(10)
    stopping = threading.Thread(target=loop.stop)
    stopping.start()
    stopping.join(timeout=10)
    is_stopped = not stopping.is_alive()
    released.set()
    stopping.join(timeout=10)

    assert is_stopped
