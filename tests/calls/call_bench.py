"""A road whose tools answer as a test has written down; what is sent to them is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from interlock.agents.models import ModelCatalog
from interlock.calls import approve, reconcile
from interlock.calls.pipeline import call_tool
from interlock.calls.road import Call, CallResult, Proposal
from interlock.domain.approval import Approval
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect, EffectState, Reply, Transport
from interlock.domain.errors import UnavailableError
from interlock.domain.ids import EffectId, ExecutorId, RunId, StepName, ToolName
from interlock.domain.principal import Seat
from interlock.domain.run import RunOutcome, RunState
from interlock.domain.workflow import WORKFLOW_AGENT
from interlock.runtime.durable.segment import Segment
from interlock.runtime.steps import Services
from interlock.store import approvals, effects, leases
from interlock.store.engine import CrashPoints
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.road_bench import DANA, RoadBench

Body = Callable[[Segment], Awaitable[Json]]
UNKNOWN = Reply(transport=Transport.UNKNOWN, problem="no answer within 1 s")
NOT_SENT = Reply(transport=Transport.NOT_SENT, problem="all connection attempts failed")
FOUND_NONE = Reply(transport=Transport.REPLY, status=200, body={"items": []})


def said(status: int, body: Json = None, *, retry_after_s: float | None = None) -> Reply:
    """Return a reply with a status."""
    return Reply(transport=Transport.REPLY, status=status, body=body, retry_after_s=retry_after_s)


def created(number: str = "1") -> Reply:
    """Return the reply of a write that was done."""
    return said(201, {"id": number, "version": 1, "reference": None})


def found(*numbers: str) -> Reply:
    """Return the reply of a search."""
    items: list[Json] = [{"id": number} for number in numbers]
    return said(200, {"items": items})


class Outside:
    """Answers each tool's calls with what was written down for it, the last one for ever.

    `links` says whether one-time links can be had; `on_send` is called with each call sent.
    """

    def __init__(self) -> None:
        self.sent: list[Call] = []
        self.links = True
        self.on_send: Callable[[Call], None] = lambda _call: None
        self._replies: dict[str, list[Reply]] = {}

    def answers(self, effect_class: str, *replies: Reply) -> None:
        """Write down how the tool of a class answers."""
        self._replies[TOOL_OF.get(effect_class, effect_class)] = list(replies)

    def count(self, effect_class: str) -> int:
        """Return how often the tool of a class was sent to."""
        tool = TOOL_OF.get(effect_class, effect_class)
        return sum(call.effect.tool == tool for call in self.sent)

    async def prepare(self, call: Call) -> JsonObject | None:
        """Give a one-time link."""
        if not self.links:
            raise UnavailableError("no link today")
        return {"link": f"/links/{call.effect.attempt}"}

    async def send(self, call: Call) -> Reply:
        """Keep the call and give the next answer."""
        self.sent.append(call)
        self.on_send(call)
        default = FOUND_NONE if call.effect.tool == TOOL_OF["read"] else created()
        replies = self._replies.get(call.effect.tool, [default])
        return replies.pop(0) if len(replies) > 1 else replies[0]


class Points(CrashPoints):
    """Does something else than to kill the process where a crash point is reached; once."""

    def __init__(self) -> None:
        super().__init__()
        self._actions: dict[tuple[str, str | None], Callable[[], object]] = {}

    def at(self, name: str, tool: str | None, action: Callable[[], object]) -> None:
        """Let something happen at a point of a tool."""
        self._actions[name, tool] = action

    def reach(self, name: str, *, tool: str | None = None) -> None:
        """Do what was asked for."""
        self._actions.pop((name, tool), lambda: None)()


class CallBench(RoadBench):
    """A started engine without connectors; `edits` are files of the project, "" for none."""

    def __init__(
        self,
        url: str,
        *,
        approve: bool = False,
        level: int = 3,
        edits: Mapping[str, str] | None = None,
    ) -> None:
        project = files("http://127.0.0.1:9", approve=approve, level=level) | dict(edits or {})
        self.body: Body | None = None
        super().__init__(url, {path: text for path, text in project.items() if text})
        self.outside = Outside()
        self.db.points = self.points = Points()
        self.road = replace(self.road, sender=self.outside)
        self._services = Services(road=self.road, catalog=ModelCatalog({}))

    def call(self, effect_class: str, *, text: str = "hello", key: str | None = None) -> RunId:
        """Run the workflow that calls the tool of a class, as far as it gets at once."""
        return self.run(WORKFLOW_OF[effect_class], {"text": text}, key=key)

    def one(self, run_id: RunId) -> Effect:
        """Return the run's one effect that is no probe."""
        [effect] = [e for e in self.effects(run_id) if "#probe" not in e.step_name]
        return effect

    def state(self, run_id: RunId) -> tuple[EffectState, RunState]:
        """Return the states of the run's effect and of the run."""
        return self.one(run_id).state, self.get(run_id).state

    def pass_time(self, run_id: RunId) -> None:
        """Let pauses, quiet times and open breakers end, as often as a call can need them."""
        for _ in range(200):
            run = self.get(run_id)
            if run.state.is_final or (run.reason or "").startswith("effect/"):
                return
            self.engine.advance(10)

    def asked(self, run_id: RunId) -> list[Approval]:
        """Return the approvals of the run's effect, oldest first."""
        effect_id = self.one(run_id).effect_id
        with self.db.reading() as tx:
            return approvals.list_for_effect(tx, effect_id)

    def approve(self, approval: Approval) -> None:
        """Let a person approve, and let the run go on."""
        approve.answer(
            self.db,
            self.engine.dispatch,
            approval.approval_id,
            by=DANA,
            answer="approve",
            digest=approval.digest,
        )
        self.engine.run_until_idle()

    def settle(self, effect: Effect, answer: str) -> None:
        """Let a person settle a parked effect, and let the run go on."""
        reconcile.settle(
            self.db,
            self.engine.dispatch,
            effect.effect_id,
            by=DANA,
            answer=answer,  # type: ignore[arg-type]  # tests name one of the literals
            reason="I looked",
        )
        self.engine.run_until_idle()

    def steal(self, *, was_seen: bool = True) -> None:
        """Let another worker take over what runs, as from one that is dead, or seems to be."""
        owner = ExecutorId("memory")
        self.db.run(
            "takeover",
            lambda tx: leases.takeover(tx, owner, max_recoveries=9, was_seen=was_seen),
        )

    def effect(self, effect_id: EffectId) -> Effect:
        """Return an effect as it stands."""
        with self.db.reading() as tx:
            return effects.get(tx, effect_id)

    async def propose(
        self,
        durable: Segment,
        name: str,
        effect_class: str,
        *,
        arguments: Json = None,
        version: int | None = None,
    ) -> CallResult:
        """Take one call down the road, from inside a body."""
        tool = TOOL_OF.get(effect_class, effect_class)
        proposal = Proposal(
            step_name=StepName(f"{name}/{tool}"),
            tool=ToolName(tool),
            version=version,
            arguments={"text": name} if arguments is None else arguments,
            seats=(seat_of(durable),),
            parent_span="run",
        )
        return await call_tool(self.road, durable, proposal)

    async def _code(self, durable: Segment) -> RunOutcome:
        if self.body is None:
            return await super()._code(durable)
        return RunOutcome(state=RunState.SUCCEEDED, output=await self.body(durable))


def seat_of(durable: Segment) -> Seat:
    """Return the seat of a workflow's own steps."""
    return Seat(workflow=durable.run.request.workflow, agent=WORKFLOW_AGENT)
