"""Journal rows as operations write them and as replay answers from them."""

from __future__ import annotations

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import StepName
from interlock.domain.run import JournalEntry, Run
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
) -> JournalEntry:
    """Write the result of one operation, in the transaction that locked the run, and return it."""
    entry = JournalEntry(
        name=name,
        kind=kind,
        value=value,
        error=error,
        input_digest=None,
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
