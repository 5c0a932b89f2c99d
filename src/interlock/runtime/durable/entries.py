"""Journal rows as operations write them and as replay answers from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from interlock.calls.compensate import TODO
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import StepName
from interlock.domain.run import UNDO, JournalEntry, Run
from interlock.runtime.durable import codec
from interlock.store import journal
from interlock.store.tx import Tx


def put_entry(
    tx: Tx,
    run: Run,
    name: StepName,
    kind: str,
    *,
    value: Json = None,
    error: JsonObject | None = None,
    input_digest: str | None = None,
) -> JournalEntry:
    """Write the result of one operation, in the transaction that locked the run, and return it."""
    entry = JournalEntry(
        name=name,
        kind=kind,
        value=value,
        error=error,
        input_digest=input_digest,
        epoch=run.epoch,
        at_us=tx.now_us,
    )
    journal.put(tx, run.run_id, entry)
    return entry


def replayed(entry: JournalEntry) -> Json:
    """Return what the journal says, or raise the error that it holds."""
    if entry.error is not None:
        raise codec.error_from_json(entry.error, entry.name)
    return entry.value


def may_cancel(run: Run, entries: Mapping[StepName, JournalEntry]) -> bool:
    """Return whether a claimed run only has to stop: it was asked to, and is not undoing."""
    return run.is_cancel_requested and not is_undoing(run, entries)


def is_undoing(run: Run, entries: Mapping[StepName, JournalEntry]) -> bool:
    """Return whether a run has failed and undoes what it did.

    By the journal, since a run that waited meanwhile is claimed as one that is running.
    """
    return TODO in entries and run.request.trigger.kind != UNDO


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    name: StepName
    fn: Callable[[Tx], Json]
    kind: str


class Notes:
    """Rows that nobody waits for: known already, they commit with the run's next write.

    Until then they are only in memory. A crash loses them and nothing else: a note may only say
    what a replay would find out again from the journal.
    """

    def __init__(self) -> None:
        self._open: list[_Note] = []

    def add(self, name: StepName, fn: Callable[[Tx], Json], *, kind: str) -> None:
        """Keep a note; `fn` runs in the transaction that commits it and returns its value."""
        self._open.append(_Note(name=name, fn=fn, kind=kind))

    def write(self, tx: Tx, run: Run) -> dict[StepName, JournalEntry]:
        """Write all that are open and return them; they stay open until `committed`."""
        return {note.name: _put(tx, run, note) for note in self._open}

    def committed(self, entries: Mapping[StepName, JournalEntry]) -> None:
        """Drop those that a transaction has written, now that it is committed."""
        self._open = [note for note in self._open if note.name not in entries]


def _put(tx: Tx, run: Run, note: _Note) -> JournalEntry:
    value = codec.checked(note.fn(tx), what=f"the result of `{note.name}`")
    return put_entry(tx, run, note.name, note.kind, value=value)
