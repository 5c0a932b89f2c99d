"""What the conformance suite of `Durable` needs to run one test on every engine alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from interlock.calls.durable import Durable
from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName, TenantId, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.run import (
    DEFAULT_PRIORITY,
    Abilities,
    Run,
    RunOutcome,
    RunState,
    StartRequest,
    TriggerRef,
)
from interlock.runtime.durable.engine import DbosEngine
from interlock.runtime.durable.runner import Runner
from interlock.runtime.durable.versions import Versions
from interlock.store import migrate, runs, waits
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from interlock.testing.durable import MemoryEngine

Body = Callable[[Durable], Awaitable[Json]]
KINDS = ("memory", "dbos_sqlite", "dbos_postgres")
DIGEST = "sha256:" + "0" * 64
TIMEOUT_S = 20.0


class World:
    """A database with an engine on it; each run is started with the code that it runs."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.clock = ManualClock()
        self.db = Database(url, clock=self.clock)
        self._bodies: dict[str, Body] = {}
        self.versions = self._new_versions(1)
        migrate.upgrade(self.db)
        self.engine = self._new_engine()
        self.engine.start()

    def begin(
        self,
        body: Body,
        *,
        labels: Labels | None = None,
        value: Json = None,
        priority: int = DEFAULT_PRIORITY,
        tenant: str = "default",
        release: int = 1,
    ) -> RunId:
        """Start a run of this code and return its id."""
        request = replace(
            self.request(body, labels=labels, value=value),
            priority=priority,
            tenant=TenantId(tenant),
            release=release,
        )
        dispatch = self.engine.dispatch
        return self.db.run("test", lambda tx: dispatch.start(tx, request, body_digest=DIGEST))[0]

    def request(
        self, body: Body, *, labels: Labels | None = None, value: Json = None
    ) -> StartRequest:
        """Return the request for a run of this code."""
        name = f"w-{uuid.uuid4()}"
        self._bodies[name] = body
        return StartRequest(
            workflow=WorkflowName(name),
            workflow_version=1,
            release=1,
            environment="dev",
            tenant=TenantId("default"),
            department="it",
            trigger=TriggerRef(kind="manual", source="test", key=name),
            input=value,
            labels=labels or Labels(),
        )

    def until(self, run_id: RunId, *states: RunState) -> Run:
        """Return the run once it is in one of these states."""
        return self.engine.wait_for(run_id, *states, timeout_s=TIMEOUT_S)

    def output(self, run_id: RunId) -> Json:
        """Return the result of a run that succeeds."""
        return self.until(run_id, RunState.SUCCEEDED).output

    def signal(self, run_id: RunId, topic: str, value: Json, *, key: str | None = None) -> bool:
        """Send a signal in a transaction of its own."""
        dispatch, dedupe_key = self.engine.dispatch, key or str(uuid.uuid4())
        return self.db.run(
            "test", lambda tx: dispatch.signal(tx, run_id, topic, value, dedupe_key=dedupe_key)
        )

    def cancel(self, run_id: RunId) -> bool:
        """Ask a run to stop in a transaction of its own."""
        return self.db.run("test", lambda tx: self.engine.dispatch.cancel(tx, run_id))

    def pause(self, run_id: RunId) -> bool:
        """Let a run stand still in a transaction of its own."""
        return self.db.run("test", lambda tx: self.engine.dispatch.pause(tx, run_id))

    def resume(self, run_id: RunId) -> bool:
        """Let a run go on in a transaction of its own."""
        return self.db.run("test", lambda tx: self.engine.dispatch.resume(tx, run_id))

    def advance(self, seconds: float) -> None:
        """Let database time pass and what is due wake."""
        self.clock.advance(seconds)
        self.engine.wake()

    def restart(self, *, release_format: int = 1) -> None:
        """Stop the worker and start another one on the same database."""
        self.engine.stop()
        self.versions = self._new_versions(release_format)
        self.engine = self._new_engine()
        self.engine.start()

    def get(self, run_id: RunId) -> Run:
        """Return the run as it is now."""
        with self.db.reading() as tx:
            return runs.get(tx, run_id)

    def waits(self, run_id: RunId) -> list[StepName]:
        """Return the names of the open waits of a run."""
        with self.db.reading() as tx:
            return [wait.name for wait in waits.list_waits(tx, run_id)]

    def runner(self) -> Runner:
        """Return the engine's runner, whose hints a test may repeat."""
        return self.engine._runner

    def close(self) -> None:
        """Stop the worker and close the database."""
        self.engine.stop()
        self.db.close()

    def _new_engine(self) -> MemoryEngine | DbosEngine:
        if self.kind == "memory":
            return MemoryEngine(self.db, self._code, clock=self.clock, versions=self.versions)
        return DbosEngine(self.db, self._code, pause=self._pause, versions=self.versions)

    def _new_versions(self, release_format: int) -> Versions:
        """Return what a worker is that reads such releases; a run needs the number of its own."""
        return Versions(
            Abilities(release_format=release_format),
            lambda _tx, run: Abilities(release_format=run.request.release),
        )

    async def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def _code(self, durable: Durable) -> RunOutcome:
        output = await self._bodies[durable.run.request.workflow](durable)
        return RunOutcome(state=RunState.SUCCEEDED, output=output)


@contextmanager
def open_world(kind: str, url: str) -> Iterator[World]:
    """Open a world and close it at the end, leaving no thread behind."""
    world = World(kind, url)
    try:
        yield world
    finally:
        world.close()
    left = [t.name for t in threading.enumerate() if t.name.startswith(("interlock-", "memory-"))]
    assert left == []


class Tally:
    """Counts what really happened, across segments and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seen: list[str] = []

    def add(self, what: str) -> int:
        """Note one happening and return how often it has happened."""
        with self._lock:
            self.seen.append(what)
            return self.seen.count(what)

    def count(self, what: str) -> int:
        """Return how often something has happened."""
        with self._lock:
            return self.seen.count(what)
