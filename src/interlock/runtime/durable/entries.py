"""Journal rows as operations write them and as replay answers from them."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.calls.compensate import TODO
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import StepName
from interlock.domain.run import UNDO, JournalEntry, Run
from interlock.runtime.durable import codec
from interlock.store import journal
from interlock.store.engine import Tx


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
