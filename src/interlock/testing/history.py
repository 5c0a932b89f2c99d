"""Recorded histories: runs that ended, with all their rows, replayed strictly against the code.

Durable code must ask for the same names whenever it runs. A history that no longer replays shows a
change that would break runs under way, before it ships.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

from interlock.calls.durable import Retry
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError, InterlockError, UnavailableError
from interlock.domain.ids import ExecutorId, RunId, StepName
from interlock.domain.run import Expired, JournalEntry, Run, RunOutcome
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.segment import Segment
from interlock.runtime.durable.threads import StoreThreads
from interlock.store import histories, journal, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.durable import NoHints

T = TypeVar("T")
Code = Callable[[Segment], Awaitable[RunOutcome]]
_EXECUTOR = ExecutorId("replay")
_REPEATED = frozenset({"gate.ask", "run.compensate", "step.failed"})
"""Transactions that leave no record and so are repeated by every replay."""
_missed: ContextVar[StepName | None] = ContextVar("interlock_missed", default=None)


def record(db: Database, run_id: RunId) -> JsonObject:
    """Return the history of an ended run tree: its rows by table, and every release.

    Nothing is redacted: record test data only.
    """
    with db.reading() as tx:
        tree = [run.run_id for run in runs.tree(tx, run_id)]
        if not tree or not all(runs.get(tx, member).state.is_final for member in tree):
            raise InputError(f"the run `{run_id}` is no root, or something below it has not ended")
        return histories.read_tree(tx, run_id)


def load(db: Database, history: JsonObject) -> list[RunId]:
    """Put the rows of a history into an empty database; return its runs, the root first.

    Columns that have been added since are empty, zero or false.
    """
    return db.run("history.load", lambda tx: histories.write_tree(tx, history))


async def replay(db: Database, run_id: RunId, code: Code) -> tuple[str, ...]:
    """Run the code of a loaded run again and again; return how it diverged, empty if it did not.

    Once for each instant at which the run could have been interrupted, with what was recorded by
    then. The code may only go on to something that was recorded later, has to ask for everything
    that is recorded with the same inputs, and has to end as the run did.
    """
    with db.reading() as tx:
        ended, entries = runs.get(tx, run_id), journal.load(tx, run_id)
    threads, found, asked = StoreThreads(db), dict[str, None](), set[str]()
    outcome: RunOutcome | None = None
    try:
        for count in range(len(entries) + 1):
            segment = _Replay(
                db.run("history.open", lambda tx: histories.reopen(tx, run_id, _EXECUTOR)),
                dict(islice(entries.items(), count)),
                names=entries.keys(),
                threads=threads,
            )
            outcome = await segment.outcome(code)
            found |= dict.fromkeys(segment.found)
            asked |= segment.asked
    finally:
        threads.close()
    if not found:
        unasked = (name for name in entries if _base(name) not in asked)
        found |= {f"`{name}` was recorded, and is not asked for any more": None for name in unasked}
        found |= dict.fromkeys(_other_end(ended, outcome))
    return tuple(found)


class _ReachedError(UnavailableError):
    """The code has come to what the history does not say, so this replay ends."""


class _Replay(Segment):
    """A segment that answers from a part of a journal, and stops at what is not in it."""

    def __init__(
        self,
        run: Run,
        entries: Mapping[StepName, JournalEntry],
        *,
        names: Collection[StepName],
        threads: StoreThreads,
    ) -> None:
        super().__init__(run, entries, threads=threads, dispatch=StoreDispatch(NoHints()))
        self._names = names
        self.found: list[str] = []
        self.asked: set[str] = set()

    async def outcome(self, code: Code) -> RunOutcome | None:
        """Run the code and return how it ended; None if it came to what is not recorded."""
        try:
            return await self.execute(code)
        except InterlockError as error:
            if self.stopped_by is None:
                self.found.append(f"it raised `{error.code}`: {error.message}")
            return None

    def recorded(self, name: StepName, *, input_digest: str | None = None) -> JournalEntry | None:
        """Return what was recorded by then, and note what was asked for."""
        entry = super().recorded(name, input_digest=input_digest)
        self.asked.add(_base(name))
        _missed.set(name if entry is None else None)
        return entry

    def note(self, name: StepName, _fn: Callable[[Tx], Json], *, kind: str) -> None:  # noqa: ARG002
        """Write nothing: whatever is noted goes with a write, and the replay ends before that."""
        self._enter(name)
        self.asked.add(_base(name))
        if super().recorded(name) is None and name not in self._names:
            self.found.append(f"`{name}` is asked for, and was never recorded")

    async def step(
        self,
        name: StepName,
        fn: Callable[[], Awaitable[Json]],
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Return what was recorded; nothing is run anew."""
        if self.recorded(name) is None:
            self._end_at(name)
        return await super().step(name, fn, retry=retry, timeout_s=timeout_s)

    async def wait(self, name: StepName, topic: str, *, until_us: int | None) -> Json | Expired:
        """Return what was recorded."""
        if self.recorded(name) is None:
            self._end_at(name)
        return await super().wait(name, topic, until_us=until_us)

    def _diverged(self, name: StepName) -> None:
        self.found.append(f"`{name}` was recorded for another input")

    async def _write(
        self,
        name: str,
        fn: Callable[[Tx, Run], T],
        *,
        tool: str | None = None,
        first: Callable[[Tx], object] | None = None,
    ) -> T:
        missed = _missed.get()
        if missed is not None and (missed in self._names or name not in _REPEATED):
            self._end_at(missed)
        return await super()._write(name, fn, tool=tool, first=first)

    def _end_at(self, name: StepName) -> None:
        if name not in self._names:
            self.found.append(f"`{name}` is asked for, and was never recorded")
        self.stop(_ReachedError(f"`{name}` is not recorded yet"))
        self._enter()


def _other_end(ended: Run, outcome: RunOutcome | None) -> Iterator[str]:
    if outcome is None:
        yield "it did not come to its end"
        return
    for name in ("state", "end_state", "error_code", "error_message", "output"):
        was, now = getattr(ended, name), getattr(outcome, name)
        if was != now:
            yield f"its {name} was `{was}`, and is `{now}`"


def _base(name: str) -> str:
    """Return the step that a name belongs to: what follows after `#` is its detail."""
    return name.partition("#")[0]
