"""What the agents of a run tree share: its blackboard, where reading raises the reader's labels."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.run import Run
from interlock.store import blackboard, runs
from interlock.store.tx import Tx


def read_shared(tx: Tx, run: Run, keys: Iterable[str]) -> JsonObject:
    """Return the newest values under some keys of the run's tree; absent ones are left out.

    The run takes on the labels that they carry, in this transaction.
    """
    values: JsonObject = {}
    for key in sorted(set(keys)):
        note = blackboard.read(tx, run.request.root_id or run.run_id, key)
        if note is not None:
            runs.raise_labels(tx, run.run_id, note.labels)
            values[key] = note.value
    return values


def share(tx: Tx, run: Run, key: str, value: Json, *, writer: str) -> int:
    """Publish a value for the run's tree with the labels that the run has now; return its version.

    Raises `ConflictError` if another run of the tree publishes under the same key at this moment.
    """
    root_id = run.request.root_id or run.run_id
    newest = blackboard.read(tx, root_id, key)
    return blackboard.write(
        tx,
        root_id,
        key,
        value,
        expected_version=0 if newest is None else newest.version,
        labels=runs.get(tx, run.run_id).labels,
        writer=writer,
        run_id=run.run_id,
    )
