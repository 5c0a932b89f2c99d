"""The port to durable execution: what a run may do so that a crash at any instant loses nothing.

Two sides. `Durable` is what code inside a run holds. `Dispatch` is what code outside a run uses,
inside its own transaction. Journal and ledger are always the store; adapters differ only in how
work is dispatched, claimed, timed and recovered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import ChildOutcome, Expired, JournalEntry, Run, StartRequest
from interlock.store.tx import Tx

T = TypeVar("T")

LEASE_S = 20.0
"""For how long a worker owns its runs without a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a step is tried: attempts in all, first pause and longest pause in seconds."""

    attempts: int = 3
    initial_s: float = 1.0
    max_s: float = 60.0


class Durable(Protocol):
    """What the code of one segment of one run may do.

    Every name is unique in its run; `StepNameReusedError` otherwise. Each write first locks the run
    row with its own epoch; if another worker owns the run, `FencedError` is raised and nothing is
    written. After a cancel was requested the next operation raises `CancelledRunError`.
    """

    @property
    def run(self) -> Run:
        """Return the run as it was claimed; `run.epoch` is this owner's."""
        ...

    @property
    def dispatch(self) -> Dispatch:
        """Return what this run may do to others, inside its own transactions."""
        ...

    def is_surely_before(self, at_us: int) -> bool:
        """Return whether database time is before `at_us`; False if that takes a question."""
        ...

    def recorded(self, name: StepName, *, input_digest: str | None = None) -> JournalEntry | None:
        """Return what is in the journal under a name, without running anything.

        If it was recorded for another input than this, it counts all the same, and the event
        `replay.diverged` is written: the code, or what it read, is not what it was.
        """
        ...

    async def step(
        self,
        name: StepName,
        fn: Callable[[], Awaitable[Json]],
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Run `fn` at least once until its result is recorded, then always return the record.

        An exception is retried only if it is an `InterlockError` with `is_retryable`; the final
        error is recorded too and raised as `StepFailedError`, now and on every replay.
        """
        ...

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in a read-only transaction: neither fenced nor recorded."""
        ...

    async def transact(
        self,
        name: str,
        fn: Callable[[Tx], T],
        *,
        tool: str | None = None,
        expect: Callable[[Tx], None] | None = None,
    ) -> T:
        """Run `fn` in one fenced transaction that leaves no journal row; may run again on replay.

        `name` names the transaction (and so its crash points), `tool` the tool it is about.
        `expect` says what `fn` is sure to ask, which is then asked together with the lock.
        """
        ...

    async def commit(
        self,
        name: StepName,
        fn: Callable[[Tx], Json],
        *,
        kind: str = "commit",
        tool: str | None = None,
        input_digest: str | None = None,
    ) -> Json:
        """Run `fn` and write its journal row in one fenced transaction: exactly once.

        `kind` is the journal row's kind and names the transaction (and so its crash points).
        `input_digest` is recorded with it, and compared on replay: see `recorded`.
        """
        ...

    def note(self, name: StepName, fn: Callable[[Tx], Json], *, kind: str) -> None:
        """Run `fn` and write its journal row with the run's next write, at the latest its end.

        For what a replay would find out again from the journal: a crash before that write loses
        it. `fn` must not fail; nothing is written if the name is recorded already.
        """
        ...

    async def put_away(self, names: Sequence[StepName]) -> None:
        """Keep what is recorded under and below these names out of this and later segments.

        So that a run with many steps is claimed as fast as one with few. For code that will not
        come to these names again; they stay recorded, and `journal.find` finds them.
        """
        ...

    def in_flight(self) -> AbstractContextManager[None]:
        """Hold the segment while something outside is going on, until its outcome is committed.

        Whatever awaits the outside does so inside `step` or inside this: otherwise another
        branch's wait may end the segment under it. Operations inside are not refused when a cancel
        was requested or the worker is being drained, so that an outcome is never lost; a fence
        still refuses them.
        """
        ...

    async def wait(self, name: StepName, topic: str, *, until_us: int | None) -> Json | Expired:
        """Return the oldest unconsumed signal of a topic, or `Expired` at `until_us`.

        `until_us` has to be the same on every replay: take it from a row or from `now_us`.
        A signal sent before the wait is kept; none is lost or given to two waits. Waiting holds no
        thread, coroutine or connection: the segment ends, and replay returns here.
        """
        ...

    async def sleep(self, name: StepName, until_us: int) -> None:
        """Return not before `until_us` by database time, also across restarts."""
        ...

    async def child(self, name: StepName, request: StartRequest) -> ChildOutcome:
        """Start exactly one child run under this name and wait for how it ends."""
        ...

    async def spawn(self, name: StepName, request: StartRequest) -> RunId:
        """Start exactly one child run under this name and return its id."""
        ...

    async def gather(
        self,
        branches: Sequence[Callable[[], Awaitable[Json]]],
        *,
        limit: int = 8,
        on_error: Literal["fail_fast", "collect"] = "fail_fast",
    ) -> list[Json | BaseException]:
        """Run branches, at most `limit` at once; results are in the order given.

        `fail_fast` raises the first error and stops the others at their next operation; `collect`
        returns errors in their places.
        """
        ...

    async def hold(
        self, name: StepName, keys: Mapping[str, int], *, hold_while_waiting: bool = False
    ) -> None:
        """Hold all keys, each with how many runs may hold it at once, until the run ends.

        The run waits until it can have all of them, and holds none of them until then; waiting
        costs nothing. They are free in the transaction that ends the run, whoever ends it. While
        the run waits for a person, and while it is paused, they are free too, unless
        `hold_while_waiting`; this operation then takes them again before the run goes on.
        """
        ...

    def gate(
        self, name: StepName, keys: Mapping[str, int], *, hold_while_waiting: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Hold all keys for a block, as `hold` does for a run; free when the block has ended."""
        ...

    async def now_us(self, name: StepName) -> int:
        """Return database time, recorded at first use."""
        ...

    async def uuid(self, name: StepName) -> str:
        """Return a new UUIDv7, recorded at first use."""
        ...


class Dispatch(Protocol):
    """What the outside may do to runs; each takes effect if and only if `tx` commits."""

    def start(self, tx: Tx, request: StartRequest, *, body_digest: str) -> tuple[RunId, bool]:
        """Accept a run, deduplicated by (trigger source, key); also return whether it is new.

        The same key with another body raises `DedupeConflictError`.
        """
        ...

    def signal(self, tx: Tx, run_id: RunId, topic: str, value: Json, *, dedupe_key: str) -> bool:
        """Send a signal; returns False if one with this key was sent before."""
        ...

    def cancel(self, tx: Tx, run_id: RunId) -> bool:
        """Ask a run and its children to stop; returns False if it has ended already."""
        ...

    def pause(self, tx: Tx, run_id: RunId) -> bool:
        """Let a run stand still at its next operation; returns False if there is nothing to pause.

        What was sent is still recorded; signals are kept until the run is resumed.
        """
        ...

    def resume(self, tx: Tx, run_id: RunId) -> bool:
        """Let a paused or dead-lettered run go on; returns False if it is neither."""
        ...
