"""A session with one MCP server, kept in a task of its own and opened anew when it is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context

from mcp import ClientSession

from interlock.domain.errors import InterlockError, UnavailableError, UnreachableError
from interlock.tools.connectors.drain import Drain

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

Opener = Callable[[Callable[[], None]], AbstractAsyncContextManager[ClientSession]]
"""Opens a session; the function that it is given is called when the session is over."""


class Link:
    """Lends the session of one server to many calls at once. For one event loop.

    The session lives in its own task, because its cancel scopes must be left by the task that
    entered them, whichever call opened it first.
    """

    def __init__(
        self, name: str, opener: Opener, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._opener = opener
        self._monotonic = monotonic
        self._drain = Drain()
        self._connection: _Connection | None = None
        self._failures = 0
        self._retry_at_s = 0.0

    @asynccontextmanager
    async def session(self, *, within_s: float) -> AsyncIterator[ClientSession]:
        """Lend the session, opening it if need be.

        Raises `UnreachableError` if there is none within the time or the pause after a failed
        attempt is not over, `UnavailableError` if it is closed: nothing was sent then.
        """
        with self._drain.call() as is_open:
            if not is_open:
                msg = f"the connection to `{self._name}` is closed"
                raise UnavailableError(msg)
            connection = self._current()
            try:
                async with asyncio.timeout(within_s):
                    await connection.is_settled.wait()
            except TimeoutError:
                msg = f"`{self._name}` could not be reached within {within_s:g} s"
                raise UnreachableError(msg) from None
            if connection.session is None:
                raise UnreachableError(connection.problem)
            yield connection.session

    def drop(self) -> None:
        """Give up the present session; the next call opens another."""
        if self._connection is not None:
            self._connection.is_over.set()

    async def aclose(self) -> None:
        """Wait for the calls under way, then close the session and stop its server."""
        await self._drain.close()
        if self._connection is not None:
            self._connection.is_over.set()
            await asyncio.wait([self._connection.task])

    def _current(self) -> _Connection:
        connection = self._connection
        if connection is not None and not connection.is_over.is_set():
            return connection
        wait_s = self._retry_at_s - self._monotonic()
        if wait_s > 0:
            msg = f"`{self._name}` could not be reached and is tried again in {wait_s:.1f} s"
            raise UnreachableError(msg)
        self._connection = _Connection(self._hold)
        return self._connection

    async def _hold(self, connection: _Connection) -> None:
        try:
            async with self._opener(connection.is_over.set) as session:
                connection.session = session
                connection.is_settled.set()
                self._failures = 0
                await connection.is_over.wait()
        except Exception as error:  # noqa: BLE001  # the connector's edge: every failure is reported
            if connection.session is None:
                self._failures += 1
                pause_s = min(FIRST_PAUSE_S * 2.0**self._failures, LONGEST_PAUSE_S)
                self._retry_at_s = self._monotonic() + pause_s
                connection.problem = f"`{self._name}` could not be reached: {_reason(error)}"
        finally:
            connection.is_over.set()
            connection.is_settled.set()


class _Connection:
    """One session and the task that holds it; settled once it is open or cannot be."""

    def __init__(self, hold: Callable[[_Connection], Coroutine[None, None, None]]) -> None:
        self.session: ClientSession | None = None
        self.problem = "the connection was closed before it was open"
        self.is_settled = asyncio.Event()
        self.is_over = asyncio.Event()
        # An empty context: what belongs to the call that came first must not stay with all others.
        self.task = asyncio.create_task(hold(self), context=Context())


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, InterlockError):
        return error.message[:200]
    # Of other errors the text may be the server's: nothing but a reply repeats that.
    name = type(error).__name__
    return f"{name}: {error}"[:200] if isinstance(error, OSError) else name
