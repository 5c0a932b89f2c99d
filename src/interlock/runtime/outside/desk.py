"""Where the calls of one session arrive in this process, while it owns the session's run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from interlock.calls.model import ModelReply
from interlock.calls.pipeline import Told, WaitsFor, waits_for
from interlock.calls.road import Call, CallResult
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.errors import (
    FencedError,
    IntakeFullError,
    JsonError,
    KeyTakenError,
    UnavailableError,
)
from interlock.domain.ids import EffectId, RunId, ToolName

MOST_OPEN = 100
"""How many calls of one session may be under way or wait at once."""
IDLE_S = 1.0
_RETRY_AFTER_S = 5
_PEOPLE = frozenset({"approval", "person"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call as an outside agent asks for it; `key` names its attempt, unique in its session.

    `is_new` if the key was made for it here, so that no call came with it before.
    """

    key: str
    tool: ToolName
    arguments: Json
    is_new: bool = False

    def to_json(self) -> JsonObject:
        """Render as the session notes it."""
        return {"key": self.key, "tool": self.tool, "arguments": self.arguments}

    @property
    def digest(self) -> str | None:
        """Return what tells this call from another one under the same key; None if it is bad."""
        try:
            return digest({"tool": self.tool, "arguments": self.arguments})
        except JsonError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A call that has no end yet; ask for it again by its key. `waits_for` says what it waits for.

    `reply` if it is only slow; `effect_id` is None if nothing of it is in the ledger yet.
    """

    key: str
    waits_for: WaitsFor | Literal["reply"]
    effect_id: EffectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAsked:
    """A model request as an outside agent makes it; `send` makes it of the provider.

    `input_tokens` and `output_tokens` are the most that it can take, None if it names no bound.
    """

    key: str
    model: str
    provider: str
    input_tokens: int
    output_tokens: int | None
    send: Callable[[], Awaitable[ModelReply]]


Ask = Callable[[ModelAsked], Coroutine[object, object, Json]]
"""Makes one model request and returns its recorded answer."""
Answer = Callable[[Asked, Told], Coroutine[object, object, CallResult]]
"""Makes one call and returns how it ended; tells where the call stands before each station."""


class ClosedDeskError(Exception):
    """The run is not owned here any more; the call may be asked for again."""


class _Open:
    """One call that has not ended."""

    def __init__(self, asked: Asked, desk_moved: asyncio.Event) -> None:
        self.asked = asked
        self.task: asyncio.Task[CallResult]
        self.needs_people = asyncio.Event()
        self._listeners = 0
        self._desk_moved = desk_moved
        self._waits_for: WaitsFor | None = None
        self._effect_id: EffectId | None = None

    def told(self, call: Call) -> None:
        """Note where the call stands."""
        self._waits_for = waits_for(call)
        self._effect_id = call.effect.effect_id if call.is_stored else None
        if self._waits_for in _PEOPLE:
            self.needs_people.set()
        else:
            self.needs_people.clear()
        self._desk_moved.set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count somebody who waits for the end of the call."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            self._desk_moved.set()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the end of the call, and it may come soon."""
        return bool(self._listeners) and not self.needs_people.is_set()

    @property
    def has_waited(self) -> bool:
        """Whether the call was last seen to wait, so that its run may have been left to wait."""
        return self._waits_for is not None

    def pending(self) -> Pending:
        """Return the call as its agent hears of it meanwhile."""
        return Pending(
            key=self.asked.key, waits_for=self._waits_for or "reply", effect_id=self._effect_id
        )


class Desk:
    """Takes calls of one session; opened by the code of its run, closed with its segment.

    Belongs to one event loop. A key that is under way is joined, never started twice.
    """

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._ask: Ask | None = None
        self._asking: set[asyncio.Task[Json]] = set()
        self._open: dict[str, _Open] = {}
        self._moved = asyncio.Event()
        self.opened = asyncio.Event()
        self.is_closed = False

    def open(self, answer: Answer, ask: Ask) -> None:
        """Let calls in, which `answer` makes, and model requests, which `ask` does."""
        self._answer = answer
        self._ask = ask
        self.opened.set()

    async def call(self, asked: Asked, *, patience_s: float) -> CallResult | Pending:
        """Make a call, or join the one of this key, and return its end if it comes soon.

        Raises:
            ClosedDeskError: the segment ended first; ask again, the journal knows how far it came.
            KeyTakenError: the key is that of another call.
            IntakeFullError: too many calls of the session are open.
        """
        found = self._open.get(asked.key)
        if found is None:
            self._check_room()
            found = self.begin(asked)
        if found.asked.digest != asked.digest:
            raise key_conflict(asked.key)
        needs_people = asyncio.ensure_future(found.needs_people.wait())
        try:
            with found.listening():
                await asyncio.wait(
                    {found.task, needs_people},
                    timeout=patience_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            needs_people.cancel()
        if not found.task.done():
            return found.pending()
        if not found.task.cancelled():
            return found.task.result()
        if found.has_waited:
            return found.pending()
        raise ClosedDeskError

    def begin(self, asked: Asked) -> _Open:
        """Start a call that is not under way, however many are: it may have been taken before."""
        if self._answer is None or self.is_closed:
            raise ClosedDeskError
        opened = _Open(asked, self._moved)
        self._open[asked.key] = opened
        opened.task = asyncio.create_task(self._answer(asked, opened.told))
        opened.task.add_done_callback(lambda _: self._ended(opened))
        self._moved.set()
        return opened

    async def ask(self, asked: ModelAsked) -> Json:
        """Make a model request and return its recorded answer.

        It goes on if the caller stops waiting: what is paid for is recorded.

        Raises:
            ClosedDeskError: the segment ended before it was sent.
            UnavailableError: the segment ended in the middle; whether to ask again is not for us.
            IntakeFullError: too many calls of the session are open.
        """
        if self._ask is None or self.is_closed:
            raise ClosedDeskError
        self._check_room()
        is_sent = False

        async def send() -> ModelReply:
            nonlocal is_sent
            is_sent = True
            return await asked.send()

        task = asyncio.create_task(self._ask(replace(asked, send=send)))
        self._asking.add(task)
        task.add_done_callback(self._asked)
        self._moved.set()
        await asyncio.wait({task})
        if task.cancelled() or isinstance(task.exception(), FencedError):
            if is_sent:
                raise UnavailableError("the session moved meanwhile; send the request again")
            raise ClosedDeskError
        return task.result()

    async def quiet(self, idle_s: float) -> None:
        """Return when for so long no call came or ended, and nobody waited for one to end.

        What is sent keeps its run from waiting by itself, and what waits for its turn, or is tried
        again later, need not be owned meanwhile.
        """
        while True:
            self._moved.clear()
            is_awaited = bool(self._asking) or any(one.is_awaited for one in self._open.values())
            try:
                async with asyncio.timeout(None if is_awaited else idle_s):
                    await self._moved.wait()
            except TimeoutError:
                return

    async def settled(self) -> None:
        """Return when no call is open."""
        while self._open or self._asking:
            self._moved.clear()
            await self._moved.wait()

    async def close(self) -> None:
        """Take no more calls, and stop those under way; the journal says where they stand."""
        self.is_closed = True
        tasks = [*(opened.task for opened in self._open.values()), *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_room(self) -> None:
        if len(self._open) + len(self._asking) >= MOST_OPEN:
            raise IntakeFullError(
                f"{MOST_OPEN} calls of this session are open; ask for their results first",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _asked(self, task: asyncio.Task[Json]) -> None:
        self._asking.discard(task)
        self._moved.set()
        if not task.cancelled():
            # Marked as seen, as for calls.
            task.exception()

    def _ended(self, opened: _Open) -> None:
        self._open.pop(opened.asked.key, None)
        self._moved.set()
        if not opened.task.cancelled():
            # Marked as seen: whoever asked may be gone, and the run hears of it by itself.
            opened.task.exception()


class Desks:
    """The desks of the sessions that this process owns, or is about to own.

    One that no call comes to for `idle_s` is given up; then any process may have it.
    """

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self.idle_s = idle_s
        self._desks: dict[RunId, Desk] = {}

    def find(self, run_id: RunId) -> Desk | None:
        """Return the desk of a session if it is open here."""
        desk = self._desks.get(run_id)
        return desk if desk is not None and desk.opened.is_set() and not desk.is_closed else None

    def at(self, run_id: RunId) -> Desk:
        """Return the desk of a session, open or not; whoever runs the session opens it."""
        desk = self._desks.get(run_id)
        if desk is None or desk.is_closed:
            desk = self._desks[run_id] = Desk()
        return desk

    def has(self, run_id: RunId) -> bool:
        """Return whether there is a desk of a session, open or awaited."""
        return run_id in self._desks

    def drop(self, run_id: RunId, desk: Desk) -> None:
        """Forget a desk."""
        if self._desks.get(run_id) is desk:
            del self._desks[run_id]


def key_conflict(key: str) -> KeyTakenError:
    """Return the refusal of a key that came before with another call."""
    return KeyTakenError(f"the key `{key}` came before with another tool or other arguments")
