"""Station 4, execute: the intent is committed, then the call is sent; the only place that sends.

`intend` is one transaction: the decision that counts, approvals used up, the intent row. `send`
follows at once through `ConnectorSender`, which reports only what was seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import structlog

from interlock.calls import approve, protocol, reconcile, validate
from interlock.calls.durable import Durable
from interlock.calls.propose import propose
from interlock.calls.road import Call, Live, Proposal, Road, view_of
from interlock.domain.breaker import topic_of
from interlock.domain.budget import Cost, covering
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Outcome, PolicyRequest
from interlock.domain.effect import Effect, EffectState, Reply, Transport
from interlock.domain.errors import InterlockError, UnavailableError, UnreachableError
from interlock.domain.ids import (
    DecisionId,
    StepName,
    WorkflowName,
    effect_id_of,
    trace_id_of,
)
from interlock.domain.run import Run
from interlock.domain.switch import Target
from interlock.domain.tool import EffectClass, Rate, Server
from interlock.domain.trace import Span
from interlock.observe import bodies, emit
from interlock.store import (
    approvals,
    budgets,
    decisions,
    effects,
    ladder,
    rates,
    registry,
    runs,
    spans,
)
from interlock.store.engine import CrashPoints
from interlock.store.tx import Tx
from interlock.tools.apart import run_apart
from interlock.tools.connectors.port import Connector, OutgoingCall

_log = structlog.get_logger(__name__)

_LOOK_AGAIN_US = 60_000_000
"""How long a call that a kill switch holds waits at most before it asks again."""

Decided = tuple[Decision, DecisionId, Span]
"""A decision, the id of its row, and its span, which follows that of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What policy says of a call that a plan holds, before the plan begins.

    `decision` is the most lenient one that is possible, `strictest` the other end. They are the
    same if `is_known`: then no argument comes from another call.
    """

    call: Call
    decision: Decision
    strictest: Decision
    request: PolicyRequest
    is_known: bool


async def prepare(road: Road, durable: Durable, call: Call) -> Call:
    """Fetch what the tool's guard needs before the intent, if policy would allow the call now."""
    if not _needs_link(call) or call.effect.state is EffectState.AMBIGUOUS:
        return call

    def would_be_allowed(tx: Tx) -> bool:
        live = road.live.at(tx)
        digested = _digested(tx, live, durable.run, call)
        lifted = _lifted(tx, digested)
        decision, _ = validate.decide(
            tx, live, runs.get(tx, durable.run.run_id), digested, lifted=lifted
        )
        is_allowed = decision.outcome is Outcome.ALLOW
        return is_allowed and not road.breakers.is_held(tx, digested.known_binding.server.name)

    if not await durable.read(would_be_allowed):
        return call
    # A wait of a parallel branch must not end the segment while the link is on its way.
    with durable.in_flight():
        try:
            guard = await road.sender.prepare(call)
        except InterlockError as error:
            # Nothing was sent; the call goes on without a link, and `send` refuses it with this.
            is_unreachable = isinstance(error, UnreachableError)
            guard = {"problem": error.message, "is_unreachable": is_unreachable}
    now_us = await durable.read(lambda tx: tx.now_us)
    stamped: JsonObject | None = None if guard is None else {**guard, "obtained_us": now_us}
    return replace(call, effect=replace(call.effect, guard=stamped))


async def begin(road: Road, durable: Durable, proposal: Proposal) -> Call:
    """Take a proposal as far as one transaction goes: a new one to its intent, as `intend` does.

    A call whose row is stored comes back as the row stands, one whose link has to be fetched first
    comes back as it is; nothing is written of either.
    """

    def propose_and_decide(tx: Tx) -> Call:
        began_s = time.monotonic()
        live, run = road.live.at(tx), runs.get(tx, durable.run.run_id)
        call = propose(tx, road, live, run, proposal)
        if call.is_stored or _needs_link(call):
            return call
        return _decide_and_write(tx, road, live, run, _with_digest(live, run, call), began_s)

    return await durable.transact(
        "call.intent",
        propose_and_decide,
        tool=proposal.tool,
        expect=lambda tx: _expect(tx, durable.run, proposal),
    )


def _expect(tx: Tx, run: Run, proposal: Proposal) -> None:
    """Say what a new call asks of the ledger."""
    registry.expect_live(tx)
    effects.expect(tx, effect_id_of(run.run_id, proposal.step_name))
    validate.expect_facts(tx, run, proposal)


async def intend(road: Road, durable: Durable, call: Call) -> Call:
    """Decide on facts read now and, if allowed, commit the intent; else commit the refusal.

    The returned call is `intent` (send it now), `proposed` (people are asked), ended, still
    ambiguous (its key or link ran out while it paused, so it is not sent again), or as it was with
    `not_before_us`: a rate is used up, its server fails or a kill switch holds it, and nothing was
    written.
    """

    def refresh_and_decide(tx: Tx) -> Call:
        # Read before the database's clock: who waits for the deadline by that clock may then be
        # sure that nothing is under way, however long the commit takes.
        began_s = time.monotonic()
        live, run = road.live.at(tx), runs.get(tx, durable.run.run_id)
        digested = _digested(tx, live, run, call)
        if digested.effect.state is EffectState.AMBIGUOUS:
            view = view_of(digested.effect, digested.tool)
            if protocol.recover(view, now_us=tx.now_us) != "resend":
                return call
        return _decide_and_write(tx, road, live, run, digested, began_s)

    return await durable.transact("call.intent", refresh_and_decide, tool=call.effect.tool)


def _decide_and_write(  # noqa: PLR0917  # as a transaction has them at hand
    tx: Tx, road: Road, live: Live, run: Run, call: Call, began_s: float
) -> Call:
    started_us = tx.now_us
    lifted = _lifted(tx, call)
    decision, request = validate.decide(tx, live, run, call, lifted=lifted)
    held, unpaid = None, call
    if decision.outcome is Outcome.ALLOW:
        call, short = _reserve(tx, live, run, call)
        decision = short or decision
    if decision.outcome is Outcome.ALLOW:
        held = _held(tx, road, live, call)
        if held is not None and call is not unpaid:
            budgets.settle(tx, call.effect.effect_id, Cost(micro_usd=0, calls=0))
            call = unpaid
    elif _waits_for_lift(call):
        held = _stopped(tx, decision)
    if held is not None:
        return replace(call, not_before_us=held[0], waits_for=held[1])
    decided = _record_decision(tx, run, call, decision, request, started_us)
    if decision.outcome is Outcome.ALLOW:
        intended = _write_intent(tx, road, call, run=run, decided=decided)
        return replace(intended, sent_at_s=began_s, target=_target_of(run, call))
    is_unknown = call.effect.state is EffectState.AMBIGUOUS
    if is_unknown and call.effect.effect_class is not EffectClass.READ:
        return _write_no_resend(tx, call, decided)
    return _write_refusal(tx, road, live, call, run=run, decided=decided)


async def wait_for_turn(durable: Durable, call: Call) -> Call:
    """Let the run wait until a rate may have room, a server may work, or a switch may be lifted."""
    # INVARIANT: `intend` said when.
    assert call.not_before_us is not None
    what = "rate" if call.waits_for is None else call.waits_for.partition("/")[0]
    base = f"{call.effect.step_name}#{what}.{call.effect.attempt + 1}"
    names = (StepName(f"{base}.{number}") for number in count(1))
    name = next(name for name in names if durable.recorded(name) is None)
    await durable.wait(name, call.waits_for or f"time/{name}", until_us=call.not_before_us)
    return replace(call, not_before_us=None, waits_for=None)


def _held(tx: Tx, road: Road, live: Live, call: Call) -> tuple[int, str | None] | None:
    """Return until when a call waits, and for which topic; None if it is to be sent now.

    Its server's breaker comes first, so that a call that is not sent uses up no rate.
    """
    server, effect_id = call.known_binding.server.name, call.effect.effect_id
    until_us = road.breakers.hold(tx, server, effect_id)
    if until_us is not None:
        return until_us, topic_of(server)
    until_us = rates.take(tx, _rates_of(live, call))
    if until_us is not None:
        return until_us, None
    deadline_us = tx.now_us + round(call.known_tool.limits.timeout_s * 1_000_000)
    road.breakers.claim(tx, server, effect_id, deadline_us=deadline_us)
    return None


def _reserve(tx: Tx, live: Live, run: Run, call: Call) -> tuple[Call, Decision | None]:
    """Hold what a call costs; a write that may have been done holds it since its first attempt."""
    effect = call.effect
    covered = covering(live.release.budgets.values(), run)
    if not covered or (effect.is_held and effect.effect_class is not EffectClass.READ):
        return call, None
    # Each attempt of a read is paid for, also one whose answer was lost.
    budgets.settle(tx, effect.effect_id)
    short = validate.reserve(
        tx,
        covered,
        run,
        holder=effect.effect_id,
        cost=Cost(micro_usd=call.known_tool.price_micro_usd),
        is_forced=validate.is_undo(effect),
    )
    return replace(call, effect=replace(effect, is_held=short is None)), short


def _target_of(run: Run, call: Call) -> Target:
    return validate.target_of(run, call.effect, call.tool)


def _waits_for_lift(call: Call) -> bool:
    """Return whether a call that a kill switch stops waits, and is not refused.

    What people have been asked about, what may have been done, and what asks of such a call or
    undoes one.
    """
    is_open = call.effect.state in {EffectState.PROPOSED, EffectState.AMBIGUOUS}
    proposal = call.proposal
    other = proposal.compensates or proposal.settles
    return other is not None or (call.is_stored and is_open)


def _stopped(tx: Tx, decision: Decision) -> tuple[int, str | None] | None:
    """Return until when a call that a kill switch stops waits, and for which topic."""
    for reason in decision.reasons:
        if reason.code == validate.STOPPED:
            return tx.now_us + _LOOK_AGAIN_US, reason.policy_id
    return None


def _rates_of(live: Live, call: Call) -> dict[str, Rate]:
    """Return the rates that a call counts under: of its tool, its server and its workflow."""
    effect, binding = call.effect, call.known_binding
    workflow = live.release.workflows.get(WorkflowName(effect.workflow))
    declared: dict[str, Rate | None] = {
        f"tool/{effect.tool}/{effect.environment}": binding.rate,
        f"server/{binding.server.name}": binding.server.rate,
        f"workflow/{effect.workflow}/{effect.environment}": None
        if workflow is None
        else workflow.rate,
    }
    return {key: rate for key, rate in declared.items() if rate is not None}


def foresee(
    tx: Tx,
    live: Live,
    run: Run,
    call: Call,
    *,
    before: validate.Foreseen,
    unknown: frozenset[str],
) -> Foresight:
    """Decide a call of a plan before the plan begins, as if those before it had been made.

    Nothing is written, and `intend` decides again.
    """
    digested = _digested(tx, live, run, call)
    (decision, strictest), request = validate.foresee(
        tx, live, run, digested, before=before, unknown=unknown
    )
    stopped = validate.stopping(tx, _target_of(run, digested))
    if stopped is not None:
        decision = strictest = stopped
    return Foresight(
        call=digested,
        decision=decision,
        strictest=strictest,
        request=request,
        is_known=not unknown,
    )


def write_foresight(
    tx: Tx, road: Road, live: Live, run: Run, foresight: Foresight, *, plan: StepName
) -> None:
    """Write a call of a plan that was refused, or ask people for it, before the plan begins."""
    # INVARIANT: what is written is exactly what would be sent.
    assert foresight.is_known
    call, decision = foresight.call, foresight.decision
    decided = _record_decision(tx, run, call, decision, foresight.request, tx.now_us)
    _write_refusal(tx, road, live, call, run=run, decided=decided, plan=plan)


class ConnectorSender:
    """Runs connectors: credentials are resolved here, in the sending process, just before.

    `may_send` says whether this process still holds its lease, `is_stopped` whether a kill switch
    stops a call now.
    """

    def __init__(
        self,
        *,
        connect: Callable[[Server], Connector],
        resolve: Callable[[str], str],
        points: CrashPoints,
        may_send: Callable[[], bool],
        is_stopped: Callable[[Target], bool],
    ) -> None:
        self._connect = connect
        self._resolve = resolve
        self._points = points
        self._may_send = may_send
        self._is_stopped = is_stopped

    async def prepare(self, call: Call) -> JsonObject | None:
        """Fetch what the call's guard needs; raises `InterlockError` if it cannot be had."""
        connector = self._connect(call.known_binding.server)
        return await connector.prepare(await self._outgoing(call, call.known_tool.limits.timeout_s))

    async def send(self, call: Call) -> Reply:
        """Send the attempt whose intent was committed, before its deadline."""
        tool = call.known_tool
        guard, prepared = tool.effect.guard, call.effect.guard or {}
        if guard and guard.kind == "one_time_link" and "link" not in prepared:
            problem = prepared.get("problem")
            reply = _not_sent(str(problem or f"`{tool.system}` gave no one-time link"))
            return replace(reply, is_unreachable=prepared.get("is_unreachable") is True)
        try:
            outgoing = await self._outgoing(call, tool.limits.timeout_s)
            connector = self._connect(call.known_binding.server)
            if await self._was_stopped(call):
                return _not_sent("an operator has stopped calls of this kind")
        except InterlockError as error:
            return _not_sent(error.message)
        # The last checks before the first byte; fetching the credentials may have taken long.
        remaining_s = tool.limits.timeout_s - (time.monotonic() - call.sent_at_s)
        if remaining_s <= 0:
            return _not_sent("the send deadline passed before it left")
        if not self._may_send():
            return _not_sent("this worker could not renew its lease")
        self._points.reach("send.before", tool=tool.name)
        try:
            reply = await connector.send(replace(outgoing, timeout_s=remaining_s))
        except Exception as error:  # noqa: BLE001  # an edge: whatever it raises, it may have sent
            _log.exception("connector.raised", effect_id=call.effect.effect_id)
            problem = f"the connector raised a `{type(error).__name__}`"
            return Reply(transport=Transport.UNKNOWN, problem=problem)
        self._points.reach("send.after", tool=tool.name)
        return reply

    async def _was_stopped(self, call: Call) -> bool:
        """Return whether a kill switch stops the call that was not set when it was decided."""
        # INVARIANT: `intend` says what every call that is to be sent aims at.
        assert call.target is not None
        if time.monotonic() - call.sent_at_s <= validate.KNOWN_S:
            return False
        return await run_apart(partial(self._is_stopped, call.target))

    async def _outgoing(self, call: Call, timeout_s: float) -> OutgoingCall:
        secret = await self._secret(call.known_binding.credentials, timeout_s)
        effect = call.effect
        return OutgoingCall(
            binding=call.known_binding,
            arguments=effect.arguments,
            effect_id=effect.effect_id,
            idem_key=effect.idem_key,
            attempt=effect.attempt,
            timeout_s=timeout_s,
            secret=secret,
            guard=effect.guard,
            traceparent=f"00-{trace_id_of(effect.run_id)}-{effect.effect_id[:16]}-01",
        )

    async def _secret(self, reference: str | None, timeout_s: float) -> str | None:
        if reference is None:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await run_apart(partial(self._resolve, reference))
        except TimeoutError:
            # The text is not repeated: it may be a secret that was put where a reference belongs.
            raise UnavailableError(f"its secret could not be read in {timeout_s:g} s") from None


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)


def _needs_link(call: Call) -> bool:
    """Return whether a link has to be fetched before the call can be sent."""
    guard = None if call.tool is None or call.refusal is not None else call.tool.effect.guard
    return guard is not None and guard.kind == "one_time_link"


def _digested(tx: Tx, live: Live, run: Run, call: Call) -> Call:
    """Return the call with the row and binding as they are now and the digest as policy stands."""
    stored = effects.find(tx, call.effect.effect_id)
    if stored is not None:
        call = replace(call, effect=replace(stored, guard=call.effect.guard), is_stored=True)
    bound = None
    if call.tool is not None:
        bound = live.release.bind(call.tool, call.effect.environment, run.request.workflow)
    return _with_digest(live, run, replace(call, binding=bound))


def _with_digest(live: Live, run: Run, call: Call) -> Call:
    call_digest = validate.call_digest_of(live, run, call.effect)
    return replace(call, effect=replace(call.effect, call_digest=call_digest))


def _lifted(tx: Tx, call: Call) -> frozenset[str]:
    if not call.is_stored or call.effect.call_digest is None:
        return frozenset()
    valid = approvals.list_valid(
        tx, call.effect.effect_id, call.effect.call_digest, now_us=tx.now_us
    )
    return frozenset(a.group for a in valid)


def _record_decision(  # noqa: PLR0917  # as a transaction has them at hand
    tx: Tx, run: Run, call: Call, decision: Decision, request: PolicyRequest, started_us: int
) -> Decided:
    effect = call.effect
    decision_id = DecisionId(tx.new_id())
    n = len(decisions.list_for_effect(tx, effect.effect_id)) + 1 if call.is_stored else 1
    decisions.put(
        tx,
        decision_id=decision_id,
        run_id=effect.run_id,
        effect_id=effect.effect_id,
        decision=decision,
        request=request,
        tool=effect.tool,
        tool_version=effect.tool_version,
    )
    ladder.after_denial(tx, run, decision)
    span = emit.decide_span(
        effect, decision, n=n, decision_id=decision_id, start_us=started_us, end_us=tx.now_us
    )
    return decision, decision_id, span


def _write_intent(tx: Tx, road: Road, call: Call, *, run: Run, decided: Decided) -> Call:
    decision, decision_id, span = decided
    tool, effect = call.known_tool, call.effect
    # INVARIANT: `_digested` gave the row its digest in this transaction.
    assert effect.call_digest is not None
    deadline_us = tx.now_us + round(tool.limits.timeout_s * 1_000_000)
    after = protocol.step(
        view_of(effect, tool),
        protocol.Intend(epoch=run.epoch, now_us=tx.now_us, deadline_us=deadline_us),
    )
    if call.is_stored:
        for approval in approvals.list_valid(
            tx, effect.effect_id, effect.call_digest, now_us=tx.now_us
        ):
            approvals.use(tx, approval.approval_id, effect.effect_id, after.attempt)
        # What was not needed in the end is not left open.
        approvals.void_for_effect(tx, effect.effect_id)
    intended = replace(
        effect,
        state=after.state,
        epoch=after.epoch,
        attempt=after.attempt,
        decision_id=decision_id,
        policy_version=decision.policy_version,
        first_sent_us=after.first_sent_us,
        send_deadline_us=deadline_us,
        intent_us=effect.intent_us or tx.now_us,
        error_code=None,
        error_message=None,
        outcome_us=None,
    )
    _write(tx, call, intended)
    if intended.key_hash is not None and intended.is_write:
        effects.note_duplicate(
            tx, intended.tenant, intended.tool, intended.key_hash, since_us=_window(tx, call)
        )
    spans.put(
        tx,
        emit.tool_span(intended, parent_key=call.proposal.parent_span),
        span,
        _send_span(tx, call, intended),
    )
    bodies.write_arguments(tx, intended, tool, key=road.key_secret)
    return call.at(intended)


def _write_refusal(
    tx: Tx,
    road: Road,
    live: Live,
    call: Call,
    *,
    run: Run,
    decided: Decided,
    plan: StepName | None = None,
) -> Call:
    """Write a call that will not be sent now: denied, drafted, or left to people to approve."""
    decision, decision_id, span = decided
    effect = call.effect
    is_over = decision.outcome is not Outcome.NEEDS_APPROVAL
    reason = decision.reasons[0] if is_over and decision.reasons else None
    after = protocol.step(view_of(effect, call.tool), protocol.Decided(outcome=decision.outcome))
    refused = replace(
        effect,
        state=after.state,
        decision_id=decision_id,
        policy_version=decision.policy_version,
        outcome_us=tx.now_us if is_over else None,
        error_code=reason.code if reason else None,
        error_message=reason.message if reason else None,
    )
    _write(tx, call, refused)
    end_us = tx.now_us if is_over else None
    spans.put(
        tx, emit.tool_span(refused, parent_key=call.proposal.parent_span, end_us=end_us), span
    )
    if is_over:
        approvals.void_for_effect(tx, effect.effect_id)
    else:
        approve.ask(
            tx,
            live,
            run,
            refused,
            decision=decision,
            decision_id=decision_id,
            ttl_us=road.approval_ttl_us,
            planner=call.proposal.planner,
            plan=plan,
        )
    if call.tool is not None:
        bodies.write_arguments(tx, refused, call.tool, key=road.key_secret)
    return call.at(refused)


def _write_no_resend(tx: Tx, call: Call, decided: Decided) -> Call:
    """Leave a call that may have been done, and may not be sent again now, to a person."""
    decision, decision_id, span = decided
    effect = replace(call.effect, decision_id=decision_id, policy_version=decision.policy_version)
    spans.put(tx, emit.tool_span(effect, parent_key=call.proposal.parent_span), span)
    why = "; ".join(reason.message for reason in decision.reasons)
    return call.at(reconcile.leave(tx, effect, f"it may not be sent again: {why}"))


def _write(tx: Tx, call: Call, effect: Effect) -> None:
    """Insert the row, or move the stored one by compare-and-set."""
    if not call.is_stored:
        effects.insert(tx, effect)
        return
    effects.move(tx, call.effect, effect)


def _send_span(tx: Tx, call: Call, effect: Effect) -> Span:
    return emit.send_span(effect, call.known_binding, start_us=tx.now_us)


def _window(tx: Tx, call: Call) -> int:
    key = call.known_tool.business_key
    return tx.now_us - (key.duplicate_window_h if key else 24) * 3_600_000_000
