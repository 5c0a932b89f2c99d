"""A whole road in one process: real store, policy and connectors; a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from interlock.agents.models import ModelCatalog
from interlock.calls.execute import ConnectorSender
from interlock.calls.road import LiveProject, Price, Road
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Effect
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.run import Run, RunOutcome
from interlock.manifest import apply
from interlock.policy.engine import ModelResource
from interlock.runtime import control
from interlock.runtime.durable.segment import Segment
from interlock.runtime.outside.desk import Desks
from interlock.runtime.outside.sessions import Sessions
from interlock.runtime.steps import Services
from interlock.runtime.triggers import Intake, start_manual
from interlock.runtime.workflows import close_trace, run_segment
from interlock.store import effects, migrate, runs
from interlock.store.engine import CrashPoints, Database
from interlock.testing.clock import ManualClock
from interlock.testing.durable import MemoryEngine
from interlock.tools.connectors.pool import ConnectorPool

_NO_SECRET = "none"  # a stand-in, not a secret
DANA = Principal(
    name="dana",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER, Role.OPERATOR}),
    groups=frozenset({"data-owners", "platform"}),
)


class RoadBench:
    """A started engine whose runs take the real road; `project` is applied as release 1."""

    def __init__(
        self,
        url: str,
        project: Mapping[str, str],
        *,
        crash_file: Path | None = None,
        approval_ttl_s: int = 3600,
        clock: ManualClock | None = None,
        resolve: Callable[[str], str] = lambda _reference: _NO_SECRET,
    ) -> None:
        self.clock = clock or ManualClock()
        self.db = Database(url, clock=self.clock, points=CrashPoints(crash_file))
        migrate.upgrade(self.db)
        self.pool = ConnectorPool()
        live = LiveProject(
            {"small": ModelResource(name="small", external=False, accepts=frozenset())}
        )
        self.road = Road(
            db=self.db,
            live=live,
            sender=ConnectorSender(
                connect=self.pool.get,
                resolve=resolve,
                points=self.db.points,
                may_send=lambda: True,
                is_stopped=partial(control.is_stopped, self.db),
            ),
            price=lambda _model, given, taken: Price(micro_usd=given + taken, version="test"),
            key_secret=b"k" * 32,
            approval_ttl_us=approval_ttl_s * 1_000_000,
        )
        self._services = Services(road=self.road, catalog=ModelCatalog({}))
        self.desks = Desks(idle_s=0.01)
        self.engine = MemoryEngine(
            self.db, self._code, clock=self.clock, on_end=close_trace, on_stop=self.pool.aclose
        )
        self.sessions = Sessions(self.desks, self.engine)
        self.intake = Intake(
            db=self.db,
            dispatch=self.engine.dispatch,
            live=live,
            resolve=resolve,
            accepted=lambda reference: (resolve(reference),),
        )
        self.apply(project)

    def apply(self, project: Mapping[str, str]) -> None:
        """Apply a project as the next release."""
        apply.apply(self.db, project, by="tests")

    def start(self, workflow: str, value: JsonObject, *, key: str | None = None) -> RunId:
        """Accept a run by hand; nothing runs yet."""
        accepted = start_manual(
            self.intake,
            WorkflowName(workflow),
            environment="dev",
            value=value,
            by="ops",
            tenant=DEFAULT_TENANT,
            key=key,
        )
        assert accepted.run_id is not None
        return accepted.run_id

    def run(self, workflow: str, value: JsonObject, *, key: str | None = None) -> RunId:
        """Start a run and let everything run that can without time passing."""
        run_id = self.start(workflow, value, key=key)
        self.engine.run_until_idle()
        return run_id

    def get(self, run_id: RunId) -> Run:
        """Return a run as it stands."""
        with self.db.reading() as tx:
            return runs.get(tx, run_id)

    def effects(self, run_id: RunId) -> list[Effect]:
        """Return the effects of a run, oldest first."""
        with self.db.reading() as tx:
            return effects.list_for_run(tx, run_id)

    def evidence(self, effect: Effect) -> list[str]:
        """Return the kinds of evidence of an effect, oldest first."""
        with self.db.reading() as tx:
            return [seen.kind for seen in effects.list_evidence(tx, effect.effect_id)]

    async def _code(self, durable: Segment) -> RunOutcome:
        return await run_segment(self._services, durable, desks=self.desks)

    def __enter__(self) -> Self:
        """Start the engine."""
        self.engine.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and close the connections."""
        self.engine.stop()
        self.db.close()
