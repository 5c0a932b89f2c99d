"""A worker on the real tracker: finishes some runs, then starts another and dies where told.

Leaves how the finished runs ended as JSON in FOLDER/ended.json; then arms the crash point that
stands in FOLDER/armed. A point in FOLDER/crash is armed from the start.
"""

from __future__ import annotations

import json
from pathlib import Path

from interlock.app import Interlock
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import WorkflowName
from interlock.domain.record import to_json
from interlock.domain.run import RunState
from interlock.store import effects
from tests.acceptance.desk import OPS, settings

ENDED = (RunState.SUCCEEDED, RunState.FAILED)


def work(folder: str, url: str, secret: str, plan: str) -> None:
    """Do what the module says; `plan` lists runs as `[workflow, key, input]`: finish all, start."""
    place, crash_file = Path(folder), Path(folder) / "crash"
    finish, start = json.loads(plan)
    config = settings(place / "data", url, secret=secret, crash_file=crash_file)
    interlock = Interlock.open(config)
    interlock.start()
    ended = {key: _finish(interlock, name, key, value) for name, key, value in finish}
    (place / "ended.json").write_text(json.dumps(ended))
    if start is not None:
        (place / "armed").rename(crash_file)
        _finish(interlock, *start)
    interlock.close()


def _finish(interlock: Interlock, workflow: str, key: str, value: JsonObject) -> JsonObject:
    run_id, _ = interlock.start_run(
        WorkflowName(workflow), environment="dev", value=value, by=OPS, key=key
    )
    run = interlock.wait_for(run_id, *ENDED)
    with interlock.db.reading() as tx:
        found = effects.list_for_run(tx, run_id)
    return {"state": run.state.value, "effects": to_json(tuple(found))}
