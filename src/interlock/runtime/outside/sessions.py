"""Calls of outside agents, from whatever door they come by to the run of their session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from interlock.calls.road import CallResult
from interlock.domain.canonical import Json
from interlock.domain.errors import (
    CancelledRunError,
    FencedError,
    PausedRunError,
    UnauthenticatedError,
    UnavailableError,
)
from interlock.domain.ids import RunId
from interlock.domain.run import RunState
from interlock.runtime.durable import codec
from interlock.runtime.outside.desk import (
    Asked,
    ClosedDeskError,
    Desk,
    Desks,
    ModelAsked,
    Pending,
)
from interlock.runtime.outside.session import noted, standing
from interlock.store import runs
from interlock.store.tx import Tx

T = TypeVar("T")

PATIENCE_S = 25.0
"""How long a caller waits for the end of a call; less than clients wait by default."""
_OWNER_S = 5.0
"""How long a caller waits until another process lets go of its session."""
_LOOK_S = 0.05
_STANDS_STILL = frozenset({RunState.PAUSED, RunState.DEAD_LETTERED})


class Owner(Protocol):
    """What owns runs in this process."""

    async def attend(self, run_id: RunId) -> None:
        """Claim a run that waits or is queued and run it to its next wait."""
        ...

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction."""
        ...


class Sessions:
    """Makes calls in sessions, each owned here while calls come; belongs to the owner's loop."""

    def __init__(self, desks: Desks, owner: Owner, *, patience_s: float = PATIENCE_S) -> None:
        self._desks = desks
        self._owner = owner
        self._patience_s = patience_s
        self._attending: dict[RunId, asyncio.Task[None]] = {}

    async def call(self, run_id: RunId, asked: Asked) -> CallResult | Pending:
        """Make a call in a session, or find what became of it, and return its end if it comes soon.

        Raises:
            InputError: the arguments are too large or too deep to be kept.
            KeyTakenError: the key is that of another call of the session.
            IntakeFullError: too many calls of the session are open.
            UnauthenticatedError: the session has ended.
            UnavailableError: the call was not taken: the session is paused, this process stops, or
                another one does not let go of the session.
        """
        # What cannot be noted would stop every later write of the session.
        codec.checked(asked.to_json(), what="the call")
        try:
            return await self._called(run_id, asked)
        except UnavailableError:
            # What is noted will be made, whoever owns the session next: its agent must not take it
            # for refused and make another.
            found = await self._owner.read(lambda tx: noted(tx, run_id, asked))
            if found is None:
                raise
            return found

    async def _called(self, run_id: RunId, asked: Asked) -> CallResult | Pending:
        late_s = time.monotonic() + _OWNER_S
        while True:
            desk = self._desks.find(run_id)
            if desk is None:
                found = await self._owner.read(lambda tx: standing(tx, run_id, asked))
                if found is not None:
                    return found
                desk = await self._opened(run_id, late_s)
            try:
                return await desk.call(asked, patience_s=self._patience_s)
            except (ClosedDeskError, FencedError):
                if time.monotonic() > late_s:
                    raise UnavailableError("the session moves; send the call again") from None
            except PausedRunError:
                raise UnavailableError("the session is paused") from None
            except CancelledRunError:
                raise UnauthenticatedError("the session was ended") from None

    async def ask(self, run_id: RunId, asked: ModelAsked) -> Json:
        """Make a model request in a session and return its recorded answer.

        Raises:
            StepFailedError: it was refused (`model.denied`) or failed (`model.failed`).
            BudgetSpentError: the session may ask nothing more, or not so much.
            IntakeFullError: too much of the session is open.
            UnauthenticatedError: the session has ended.
            UnavailableError: the session is paused, or another process does not let go of it.
        """
        late_s = time.monotonic() + _OWNER_S
        while True:
            desk = self._desks.find(run_id) or await self._opened(run_id, late_s)
            try:
                return await desk.ask(asked)
            except ClosedDeskError:
                if time.monotonic() > late_s:
                    raise UnavailableError("the session moves; send the request again") from None
            except PausedRunError:
                raise UnavailableError("the session is paused") from None
            except CancelledRunError:
                raise UnauthenticatedError("the session was ended") from None

    async def _opened(self, run_id: RunId, late_s: float) -> Desk:
        """Return the desk of a session, once this process owns its run."""
        while True:
            desk = self._desks.at(run_id)
            task = self._attending.get(run_id)
            if task is None and not desk.opened.is_set():
                task = self._attending[run_id] = asyncio.create_task(self._owner.attend(run_id))
                task.add_done_callback(lambda _: self._attending.pop(run_id, None))
            opened = asyncio.ensure_future(desk.opened.wait())
            try:
                await asyncio.wait(
                    {opened} if task is None else {opened, task},
                    timeout=max(late_s - time.monotonic(), 0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                opened.cancel()
            if desk.opened.is_set():
                return desk
            try:
                if task is not None and task.done():
                    # What it raised says why nobody can have the session here.
                    task.result()
                await self._check(run_id, late_s)
            except BaseException:
                if task is None or task.done():
                    # Nobody is about to open it.
                    self._desks.drop(run_id, desk)
                raise
            await asyncio.sleep(_LOOK_S)

    async def _check(self, run_id: RunId, late_s: float) -> None:
        run = await self._owner.read(lambda tx: runs.get(tx, run_id))
        if run.state.is_final:
            raise UnauthenticatedError("the session has ended")
        if run.state in _STANDS_STILL or time.monotonic() > late_s:
            why = f" for `{run.reason}`" if run.reason else ""
            raise UnavailableError(f"the session is `{run.state}`{why}; send the call again")
