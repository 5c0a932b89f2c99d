"""Takes the messages of one queue: acknowledged once their runs are stored, and not before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from interlock.domain.errors import (
    DedupeConflictError,
    InputError,
    InterlockError,
    UnavailableError,
)
from interlock.domain.workflow import Queue
from interlock.runtime.triggers import Intake, accept_message
from interlock.serve.queues.port import Login, Reader, Taken

T = TypeVar("T")

FAILURES = 5
"""How often a message may fail for a reason that is not its own before it is set aside."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
ANSWER_S = 10.0
"""How long a broker has for any answer, before its connection is given up."""
_REASON_MOST = 500

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Standing:
    """How it stands with one queue, in this process since it started to read it."""

    queue: Queue
    problem: str | None = "connecting"
    accepted: int = 0
    set_aside: int = 0
    last_code: str | None = None


def open_reader(login: Login) -> Reader:
    """Return the reader for the broker's kind; raises ImportError if its library is missing."""
    match urlsplit(login.queue.url).scheme:
        case "nats" | "tls":
            from interlock.serve.queues.nats import NatsReader  # noqa: PLC0415  # an extra

            return NatsReader(login)
        case "redis" | "rediss":
            from interlock.serve.queues.redis import RedisReader  # noqa: PLC0415  # as above

            return RedisReader(login)
        case "amqp" | "amqps":
            from interlock.serve.queues.rabbit import RabbitReader  # noqa: PLC0415  # as above

            return RabbitReader(login)
        case scheme:
            raise InputError(f"there is no broker with addresses `{scheme}://`")


class Consumer:
    """Reads one queue until it is told to stop; connects anew for as long as that takes."""

    def __init__(
        self,
        intake: Intake,
        queue: Queue,
        *,
        redeliver_s: float,
        connect: Callable[[Login], Reader] = open_reader,
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._redeliver_s = redeliver_s
        self._connect = connect
        self._stop = asyncio.Event()
        self._pause_s = FIRST_PAUSE_S
        self.standing = Standing(queue=queue)

    def stop(self) -> None:
        """Take nothing more; what is taken is finished or handed back."""
        self._stop.set()

    async def run(self) -> None:
        """Read until stopped; a broker that is away is tried again with growing pauses."""
        while not self._stop.is_set():
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001  # the edge: whatever a broker's client raises
                self.standing.problem = _words(error)
                _log.warning("queue.away", source=self._queue.source, reason=self.standing.problem)
                await self._wait()

    async def _read(self) -> None:
        secret = self._queue.secret
        login = Login(
            queue=self._queue,
            secret=None if secret is None else self._intake.resolve(secret),
            redeliver_s=self._redeliver_s,
        )
        reader = self._connect(login)
        try:
            await _answered(reader.open())
            self.standing.problem = None
            _log.info("queue.connected", source=self._queue.source)
            while not self._stop.is_set():
                taken = await _answered(reader.take())
                if taken is not None:
                    await self._settle(reader, taken)
                elif not await _answered(reader.is_connected()):
                    raise UnavailableError("the connection is lost")
                self.standing.problem, self._pause_s = None, FIRST_PAUSE_S
        finally:
            with suppress(Exception):  # what is away cannot be left in good order
                await _answered(reader.close())

    async def _settle(self, reader: Reader, taken: Taken) -> None:
        """Bring one message to its end, or hand it back when told to stop."""
        failures = taken.deliveries - 1
        async with _kept(taken, every_s=self._redeliver_s / 3):
            while True:
                try:
                    await asyncio.to_thread(
                        accept_message,
                        self._intake,
                        self._queue,
                        message_id=taken.message_id,
                        body=taken.body,
                    )
                except (InputError, DedupeConflictError) as error:
                    await self._set_aside(reader, taken, code=error.code, reason=error.message)
                    return
                except InterlockError as error:
                    if not error.is_retryable:
                        failures += 1
                    self.standing.problem = f"a message is held back: {error.code}"
                    _log.warning("queue.held", source=self._queue.source, code=error.code)
                except Exception:  # noqa: BLE001  # the edge of a request that comes as a message
                    failures += 1
                    self.standing.problem = "a message fails; the log has the details"
                    _log.exception("queue.failed", source=self._queue.source)
                else:
                    await _answered(taken.done())
                    self.standing.accepted += 1
                    return
                if failures >= FAILURES:
                    reason = f"failed {failures} times; the log has the details"
                    await self._set_aside(reader, taken, code="internal", reason=reason)
                    return
                if await self._wait():
                    await _answered(taken.back())
                    return

    async def _set_aside(self, reader: Reader, taken: Taken, *, code: str, reason: str) -> None:
        queue = self._queue
        headers = {
            "interlock-code": code,
            "interlock-reason": _header(reason),
            "interlock-source": queue.source,
            "interlock-message-id": _header(taken.message_id or ""),
        }
        if queue.dead_letter is None:
            await _answered(taken.drop())
        else:
            await _answered(reader.put_aside(queue.dead_letter, taken.body, headers))
            await _answered(taken.done())
        self.standing.set_aside += 1
        self.standing.last_code = code
        _log.error(
            "queue.set_aside",
            source=queue.source,
            dead_letter=queue.dead_letter,
            message_id=taken.message_id,
            code=code,
        )

    async def _wait(self) -> bool:
        """Pause, each time longer; return whether to stop."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return await _happens(self._stop, within_s=pause_s)


@asynccontextmanager
async def _kept(taken: Taken, *, every_s: float) -> AsyncIterator[None]:
    """Tell the broker again and again that the message is being worked on."""
    is_over = asyncio.Event()

    async def keep() -> None:
        while not await _happens(is_over, within_s=every_s):
            await _answered(taken.keep())

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        # Not cancelled: a client that is cut off in the middle of a call is in no good state.
        is_over.set()
        # If keeping failed, settling does too, and says so; at worst the message comes twice.
        await asyncio.gather(task, return_exceptions=True)


async def _happens(event: asyncio.Event, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), within_s)
    return event.is_set()


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(asked, ANSWER_S)
    except TimeoutError:
        raise UnavailableError("the broker does not answer") from None


def _words(error: Exception) -> str:
    if isinstance(error, InterlockError):
        return error.message
    if isinstance(error, ModuleNotFoundError):
        return f"`{error.name}` is not installed; run `pip install 'interlock[queues]'`"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_REASON_MOST]}".rstrip(": ")


def _header(text: str) -> str:
    """Return text as it may stand in a header: ASCII on one line."""
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())[:_REASON_MOST]
