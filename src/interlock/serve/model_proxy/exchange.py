"""One request to a provider: sent once the road lets it, its answer handed on as it comes.

Two loops meet here: the one of the run's owner sends and reads, the one of the server answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx2

from interlock.agents.upstream import Upstream
from interlock.calls.model import ModelReply
from interlock.domain.canonical import MAX_KEPT_BYTES, Json, JsonObject, canonical, parse
from interlock.domain.errors import InterlockError, JsonError, ModelFailedError
from interlock.serve.model_proxy.wire import Told, Wire, dumped, object_in, text_in
from interlock.tools.egress import WIRE, broken_by, retry_after_s
from interlock.tools.egress import Wire as Line

_BYTES_PER_TOKEN: Final = 4
_OK: Final = 200
_SERVER_ERROR: Final = 500
_TOLD: Final = frozenset({400, 413, 422, 429})
"""Answers whose reason is the agent's to read; others may speak of our credentials."""
_REASON_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Why an answer is none, or not all of it, and the status that says so."""

    status: int
    message: str
    retry_after_s: float | None = None


class Exchange:
    """A checked request on its way; made in the server's loop, sent in that of the run's owner."""

    def __init__(
        self,
        wire: Wire,
        body: JsonObject,
        headers: dict[str, str],
        *,
        upstream: Callable[[], Upstream],
    ) -> None:
        self.broken: Broken | None = None
        self.opened = asyncio.Event()
        self._wire = wire
        self._body = body
        self._headers = headers
        self._upstream = upstream
        self._reading = wire.reading(body) if body.get("stream") is True else None
        self._told = Told()
        self._answer: JsonObject | None = None
        self._is_sent = False
        self._server = asyncio.get_running_loop()
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._owner: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    # --- in the server's loop

    @property
    def answer(self) -> JsonObject | None:
        """Return the whole answer, None if there is none or it is streamed."""
        return self._answer

    def abort(self, broken: Broken) -> None:
        """Ask the provider for no more; what came is recorded. Later reasons do not count."""
        if self.broken is None:
            self.broken = broken
        if self._owner is not None:
            with suppress(RuntimeError):  # its loop has ended, and so has the request
                self._owner.call_soon_threadsafe(self._stop)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield what the agent is sent, until the provider has no more."""
        while (part := await self._parts.get()) is not None:
            yield part

    def end(self) -> bytes:
        """Return what ends a stream whose answer is recorded."""
        # INVARIANT: only streams are ended so.
        assert self._reading is not None
        return self._reading.end()

    # --- in the owner's loop

    async def send(self) -> ModelReply:
        """Send the request and return what came; raises `ModelFailedError` if nothing was sent.

        What breaks off is an answer too, since it is paid for: with an error code and tokens that
        are estimated.
        """
        self._owner = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._made())
        if self.broken is not None:
            self._stop()
        try:
            await asyncio.wait({self._task})
        finally:
            self._task.cancel()
            self._hand(None)
        if not self._task.cancelled():
            # A fault of ours is not the provider's.
            self._task.result()
        if self.broken is None:
            return self._reply()
        if not self._is_sent:
            raise ModelFailedError(self.broken.message, is_unpaid=True)
        return self._reply()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _made(self) -> None:
        line = Line()
        WIRE.set(line)
        try:
            upstream = self._upstream()
            body = self._wire.prepared(self._body, upstream.model)
            async with upstream.post(self._wire.path, body, self._headers) as response:
                if response.status_code != _OK:
                    await response.aread()
                    self.broken = _refused(response, upstream)
                    line.is_sent = False  # nobody is paid for a refusal
                else:
                    await self._read(response)
        except httpx2.TimeoutException:
            self._break(504, "the model did not answer in time")
        except (httpx2.HTTPError, OSError) as error:
            self._break(502, f"the model's answer broke off: {broken_by(error)}")
        except JsonError as error:
            self._break(502, f"the model's answer cannot be read: {error.message}")
        except InterlockError as error:
            self._break(502, error.message)
        finally:
            self._is_sent = line.is_sent

    async def _read(self, response: httpx2.Response) -> None:
        if self._reading is None:
            answer = parse(await response.aread(), max_bytes=_MOST_ANSWER)
            if not isinstance(answer, dict):
                raise JsonError("it is no object")
            self._told, self._answer = self._wire.read(answer), answer
            return
        self._told = self._reading.told
        self._server.call_soon_threadsafe(self.opened.set)
        async for event in httpx2.EventSource(response):
            part = self._reading.take(event)
            if part is not None:
                self._hand(part)
        if self._told.problem is not None:
            self._break(502, f"the model broke its answer off: {self._told.problem}")
        elif not self._told.is_whole:
            self._break(502, "the model's answer broke off")

    def _break(self, status: int, message: str) -> None:
        self.broken = self.broken or Broken(status=status, message=message[:_REASON_CHARACTERS])

    def _hand(self, part: bytes | None) -> None:
        with suppress(RuntimeError):  # the server's loop has ended
            self._server.call_soon_threadsafe(self._parts.put_nowait, part)

    def _reply(self) -> ModelReply:
        told = self._told
        is_told = told.input_tokens is not None and told.output_tokens is not None
        is_whole = self.broken is None
        asked = 0 if self._wire.is_free else len(dumped(self._body).encode())
        came = told.characters
        return ModelReply(
            body=_kept(self._reading.reply() if self._reading else self._answer),
            model=told.model or text_in(self._body, "model"),
            input_tokens=_count(told.input_tokens, asked),
            output_tokens=_count(told.output_tokens, came),
            is_estimated=not (is_told and is_whole),
            error_code=None if is_whole else ModelFailedError.code,
        )


_MOST_ANSWER: Final = 4 * 1024 * 1024


def _count(told: int | None, size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN) if told is None else told


def _kept(body: Json) -> Json:
    """Return an answer as it is recorded; of one that is too long for that, only how long."""
    size = len(canonical(body))
    return body if size <= MAX_KEPT_BYTES else {"omitted_bytes": size}


def _refused(response: httpx2.Response, upstream: Upstream) -> Broken:
    status = response.status_code
    if status in _TOLD:
        reason = _reason(response, upstream)
        message = f"the model's server refused the request ({status}): {reason}"
    elif status >= _SERVER_ERROR:
        message = f"the model's server failed ({status})"
    else:
        message = f"the model's server refuses us ({status}): the operator has to see to it"
    passed = status if status in _TOLD or status >= _SERVER_ERROR else 502
    after_s = retry_after_s(response.headers.get("retry-after"))
    return Broken(status=passed, message=message, retry_after_s=after_s)


def _reason(response: httpx2.Response, upstream: Upstream) -> str:
    try:
        body = parse(response.content)
    except JsonError:
        return "it gave no reason"
    error = object_in(body, "error") if isinstance(body, dict) else {}
    reason = text_in(error, "message")[:_REASON_CHARACTERS] or "it gave no reason"
    return reason.replace(upstream.key, "***") if upstream.key else reason
