"""A worker process for the crash test: one run with a step, a commit, a child and two waits.

Arguments: database URL, file that arms a crash point, file that stands for the outside world, file
for the run's state and output, written once it has ended.
"""

from __future__ import annotations

import json
from pathlib import Path

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName, TenantId, WorkflowName
from interlock.domain.run import Expired, RunOutcome, RunState, StartRequest, TriggerRef
from interlock.runtime.durable.engine import DbosEngine
from interlock.store import migrate
from interlock.store.engine import CrashPoints, Database

DIGEST = "sha256:" + "0" * 64


def request(workflow: str) -> StartRequest:
    """Return the request for the one run of a workflow."""
    return StartRequest(
        workflow=WorkflowName(workflow),
        workflow_version=1,
        release=1,
        environment="dev",
        tenant=TenantId("default"),
        department="it",
        trigger=TriggerRef(kind="manual", source="crash-test", key=workflow),
        input=None,
    )


class Worker:
    """What the runs do; `outside` gets a line whenever something really happens."""

    def __init__(self, outside: Path) -> None:
        self._outside = outside

    async def code(self, durable: Durable) -> RunOutcome:
        """Run the parent or the child."""
        is_parent = durable.run.request.workflow == "parent"
        output = await (self._parent(durable) if is_parent else self._child(durable))
        return RunOutcome(state=RunState.SUCCEEDED, output=output)

    async def _parent(self, durable: Durable) -> Json:
        async def happen() -> Json:
            with self._outside.open("a") as world:
                world.write("step\n")
            return "happened"

        step = await durable.step(StepName("step"), happen)
        commit = await durable.commit(StepName("commit"), lambda _tx: "committed")
        child = await durable.child(StepName("child"), request("child"))
        start_us = await durable.now_us(StepName("start"))
        time = await durable.wait(StepName("time"), "nobody", until_us=start_us + 2_500_000)
        signal = await durable.wait(StepName("signal"), "go", until_us=None)
        return [step, commit, child.output, isinstance(time, Expired), str(signal)]

    async def _child(self, durable: Durable) -> Json:
        with self._outside.open("a") as world:
            world.write(f"child {durable.run.run_id}\n")
        return await durable.commit(StepName("work"), lambda _tx: "child")


def work(url: str, crash_file: str, outside: str, result: str) -> None:
    """Start or find the run, send what it will wait for, and wait for its end."""
    db = Database(url, points=CrashPoints(Path(crash_file)))
    migrate.upgrade(db)
    engine = DbosEngine(db, Worker(Path(outside)).code)
    engine.start()

    def begin() -> RunId:
        start = engine.dispatch.start
        return db.run("begin", lambda tx: start(tx, request("parent"), body_digest=DIGEST))[0]

    run_id = begin()
    db.run("poke", lambda tx: engine.dispatch.signal(tx, run_id, "go", "on", dedupe_key="go"))
    run = engine.wait_for(run_id, RunState.SUCCEEDED, RunState.FAILED, timeout_s=40)
    Path(result).write_text(json.dumps([run.state, run.output]))
    engine.stop()
    db.close()
