"""A worker as a process of its own: finishes one run, then starts another and dies where told.

Leaves the finished run as JSON in FOLDER/ended.json; then arms the crash point that stands in
FOLDER/armed. The runs are named by their trigger keys, `-` for none.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.record import to_json
from interlock.domain.run import RunState
from interlock.store import effects
from interlock.testing.recorder_project import files

OPS = Principal(name="ops", kind=PrincipalKind.USER, roles=frozenset({Role.OWNER, Role.OPERATOR}))
ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.WAITING)


def work(folder: str, url: str, recorder: str, workflow: str, *keys: str) -> None:
    """Do what the module says; `keys` name the run to finish and the one to start."""
    finish, start = keys
    crash_file = Path(folder) / "crash"
    config = Config(
        data_dir=Path(folder) / "data",
        database_url=None if url.startswith("sqlite") else url,
        crash_file=crash_file,
    )
    interlock = Interlock.open(config)
    interlock.apply(files(recorder), by=OPS, diff=None)
    interlock.start()
    if finish != "-":
        ended = finished(interlock, run_of(interlock, workflow, finish))
        (Path(folder) / "ended.json").write_text(json.dumps(ended))
    if start != "-":
        (Path(folder) / "armed").rename(crash_file)
        interlock.wait_for(run_of(interlock, workflow, start), *ENDED)
    interlock.close()


def run_of(interlock: Interlock, workflow: str, key: str) -> RunId:
    """Return the run of a trigger key, started now if it is new."""
    run_id, _ = interlock.start_run(
        WorkflowName(workflow), environment="dev", value={"text": key}, by=OPS, key=key
    )
    return run_id


def finished(interlock: Interlock, run_id: RunId) -> object:
    """Return how a run and its effects ended, or stand if one is parked for a person."""
    while True:
        run = interlock.wait_for(run_id, *ENDED)
        with interlock.db.reading() as tx:
            found = effects.list_for_run(tx, run_id)
        is_parked = any(effect.state is EffectState.PARKED for effect in found)
        if run.state.is_final or is_parked:
            return {"run": run.state, "reason": run.reason, "effects": to_json(tuple(found))}
        # It waits for a time between two attempts.
        time.sleep(0.05)
