"""The threads of a worker: one that runs the event loop, and a few for SQL.

With one connection, which is SQLite, the transactions that wait for it are committed together.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar, cast

from interlock.store.engine import Database, Done, Work
from interlock.store.tx import Tx

T = TypeVar("T")
_Waiting = tuple[Work, asyncio.AbstractEventLoop, "asyncio.Future[object]"]
_MOST_TOGETHER = 64
_MOST_THREADS = 4
"""More only take the interpreter from each other: on two cores 6 of them are a tenth slower."""


class StoreThreads:
    """Runs transactions for code on an event loop, on threads of its own."""

    def __init__(self, db: Database) -> None:
        self.db = db
        most = min(db.pool_size, _MOST_THREADS)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="interlock-store")
        self._waiting: deque[_Waiting] = deque()
        self._is_idle = True
        self._lock = threading.Lock()

    async def run(self, name: str, fn: Callable[[Tx], T], *, tool: str | None = None) -> T:
        """Run `fn` in a transaction of that name; see `Database.run`."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[object] = loop.create_future()
        waiting: _Waiting = (Work(name=name, fn=fn, tool=tool), loop, told)
        if self.db.pool_size > 1:
            self._threads.submit(self._run, [waiting])
            return cast("T", await told)
        with self._lock:
            self._waiting.append(waiting)
            if self._is_idle:
                self._is_idle = False
                self._threads.submit(self._run_waiting)
        return cast("T", await told)

    def _run_waiting(self) -> None:
        with self._lock:
            taken = list(islice(self._waiting, _MOST_TOGETHER))
            for _ in taken:
                self._waiting.popleft()
            self._is_idle = not self._waiting
            if self._waiting:
                # Behind what else wants the thread.
                self._threads.submit(self._run_waiting)
        self._run(taken)

    def _run(self, taken: list[_Waiting]) -> None:
        done = self.db.run_together([work for work, _, _ in taken])
        for loop in {loop for _, loop, _ in taken}:
            loop.call_soon_threadsafe(_tell, loop, taken, done)

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


def _tell(loop: asyncio.AbstractEventLoop, taken: list[_Waiting], done: list[Done]) -> None:
    for (_, theirs, told), how in zip(taken, done, strict=True):
        if theirs is not loop or told.done():
            continue
        if how.error is not None:
            told.set_exception(how.error)
        else:
            told.set_result(how.result)


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
