"""The threads of a worker: one that runs the event loop, and as many for SQL as connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from interlock.store.engine import Database, Tx

T = TypeVar("T")


class StoreThreads:
    """Runs transactions for code on an event loop, on as many threads as there are connections."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._threads = ThreadPoolExecutor(db.pool_size, thread_name_prefix="interlock-store")

    async def run(self, name: str, fn: Callable[[Tx], T], *, tool: str | None = None) -> T:
        """Run `fn` in a transaction of that name; see `Database.run`."""
        return await self.call(lambda: self.db.run(name, fn, tool=tool))

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction."""

        def read() -> T:
            with self.db.reading() as tx:
                return fn(tx)

        return await self.call(read)

    async def call(self, fn: Callable[[], T]) -> T:
        """Run `fn`, which may open transactions, on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, fn)

    def close(self) -> None:
        """Wait for what is running and end the threads."""
        self._threads.shutdown(wait=True)


class LoopThread:
    """An event loop on a thread of its own, for code that is driven from other threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[object, object, T], *, timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result; never from the loop itself."""
        return self.submit(coroutine).result(timeout_s)

    def stop(self) -> None:
        """Cancel what is left, then end loop and thread."""
        self.call(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nothing of ours is on the loop's threads, so that whoever hangs there is not waited for.
        await self._loop.shutdown_asyncgens()
