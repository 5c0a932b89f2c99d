"""Station 2, validate: facts from the ledger, then policy; the answer says who may send what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from interlock.calls.road import WITHDRAWN, Call, Live, Proposal
from interlock.domain.budget import UNLIMITED_MICROS, Budget, Cost, Standing, covering
from interlock.domain.canonical import digest
from interlock.domain.clock import iso
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.effect import Effect
from interlock.domain.ids import ToolName
from interlock.domain.label import Labels
from interlock.domain.record import to_json
from interlock.domain.run import Run
from interlock.domain.switch import Target, topic_of
from interlock.domain.tool import ToolVersion
from interlock.policy.engine import World
from interlock.store import budgets, counts, effects, runs, switches, tallies
from interlock.store.counts import Counted
from interlock.store.tx import Tx

STOPPED = "call.stopped"
"""Error code of what a kill switch stops."""
KNOWN_S = 0.5
"""How long before a call or model request is sent its kill switches may have been read."""

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What will have happened before a call, as a plan has it.

    `tools` were called, `writes` of those calls wrote, `done` have succeeded for certain. `labels`
    are those of results that may have been read by then.
    """

    tools: tuple[ToolName, ...] = ()
    writes: int = 0
    done: frozenset[ToolName] = frozenset()
    labels: Labels = field(default_factory=Labels)


def expect_facts(tx: Tx, run: Run, proposal: Proposal) -> None:
    """Say what `facts_of` will ask for a new call."""
    request = run.request
    switches.expect(tx)
    tallies.expect(tx, run.run_id)
    counted = Counted(
        tenant=request.tenant,
        workflow=request.workflow,
        environment=request.environment,
        tool=proposal.tool,
    )
    counts.expect(tx, counted, tx.guessed_us - _HOUR_US)


def facts_of(
    tx: Tx,
    live: Live,
    run: Run,
    effect: Effect,
    tool: ToolVersion,
    *,
    will_send: bool = True,
) -> Facts:
    """Read what the server knows, in the transaction that decides; nobody can send any of it.

    Counted are other calls: a resend is decided on the same numbers as the attempt before it. They
    are kept from changing until `tx` ends if the call may be sent for them.
    """
    request = run.request
    window_us = tool.business_key.duplicate_window_h * _HOUR_US if tool.business_key else 0
    same_key = 0
    if tool.is_write and will_send:
        # Calls of parallel runs count each other only if they come one by one. Always before the
        # lock of the business key: then no two of them wait for each other.
        scope = (request.tenant, request.workflow, request.environment, effect.tool)
        effects.lock_key(tx, "/".join(scope))
        if effect.key_hash is not None:
            effects.lock_key(tx, effect.key_hash)
    if effect.key_hash is not None and tool.is_write:
        same_key = effects.count_same_key(
            tx,
            request.tenant,
            effect.tool,
            effect.key_hash,
            tx.now_us - window_us,
            other_than=effect.effect_id,
        )
    so_far = tallies.of_run(tx, run.run_id, effect.tool, other_than=effect)
    above = runs.ancestors(tx, run.run_id) if request.depth else []
    return Facts(
        labels=run.labels,
        user=request.user,
        calls_this_tool=so_far.calls,
        calls_this_tool_1h=effects.count_tool_since(tx, effect, tx.now_us - _HOUR_US),
        writes_this_run=so_far.writes,
        same_key_count=same_key,
        failures_this_tool=so_far.failures,
        done=so_far.done | (tallies.done_tools(tx, above) if above else frozenset()),
        depth=request.depth,
        budget_left_micros=_left_for(tx, live, run, effect),
        now_us=tx.now_us,
    )


def budget_left(tx: Tx, live: Live, run: Run) -> int:
    """Return the least that is left, in micro-USD, of the budgets of money that cover a run."""
    left = (
        budgets.standing(tx, budget, budget.account_of(run)).left
        for budget in covering(live.release.budgets.values(), run)
        if budget.unit == "micro_usd"
    )
    return min(left, default=UNLIMITED_MICROS)


def reserve(
    tx: Tx, covered: tuple[Budget, ...], run: Run, *, holder: str, cost: Cost, is_forced: bool
) -> Decision | None:
    """Hold what may be spent at most, or return the deny that says which budget has too little."""
    refused = budgets.reserve(tx, covered, run, holder=holder, cost=cost, is_forced=is_forced)
    return None if refused is None else deny("budget.spent", _refusal_of(refused, cost))


def is_undo(effect: Effect) -> bool:
    """Return whether a call undoes another, which an empty budget must not block."""
    return effect.compensates is not None


def _left_for(tx: Tx, live: Live, run: Run, effect: Effect) -> int:
    # What is held already, and what undoes something, needs nothing that is left.
    is_paid = effect.is_held or is_undo(effect)
    return UNLIMITED_MICROS if is_paid else budget_left(tx, live, run)


def _refusal_of(refused: Standing, cost: Cost) -> str:
    budget, end_us = refused.budget, refused.window.end_us
    unit = "micro-USD" if budget.unit == "micro_usd" else budget.unit
    end = "the run ends" if end_us is None else iso(end_us)
    if refused.is_closed:
        return (
            f"the budget `{budget.name}` is closed, since more was billed than was reserved;"
            f" raise its limit of {budget.limit} {unit}"
        )
    return (
        f"the budget `{budget.name}` has {refused.left} of {budget.limit} {unit} left until {end},"
        f" and this may need {cost.in_unit(budget.unit)}; ask for less, wait, or raise the limit"
    )


def decide(
    tx: Tx, live: Live, run: Run, call: Call, *, lifted: frozenset[str] = frozenset()
) -> tuple[Decision, PolicyRequest]:
    """Decide one call on facts read in this transaction; any doubt is a deny with its reason."""
    facts = _facts_before_policy(tx, run)
    # What was taken back waits for no switch to be lifted.
    is_wanted = call.refusal != WITHDRAWN
    stopped = stopping(tx, target_of(run, call.effect, call.tool)) if is_wanted else None
    if stopped is not None:
        return stopped, _request_of(call, facts, lifted)
    if call.refusal is None:
        facts = facts_of(tx, live, run, call.effect, call.known_tool)
    request = _request_of(call, facts, lifted)
    world = _world_of(live, call)
    if isinstance(world, Decision):
        return world, request
    decision = world.decide(request)
    if decision.outcome is Outcome.NEEDS_APPROVAL and lifted.issuperset(decision.groups):
        # Fail closed: the run would wait for nobody.
        return deny(
            "approval.unanswerable", "policy names no group that could still answer"
        ), request
    return decision, request


def foresee(
    tx: Tx, live: Live, run: Run, call: Call, *, before: Foreseen, unknown: frozenset[str]
) -> tuple[tuple[Decision, ...], PolicyRequest]:
    """Return how leniently, and how strictly, a call of a plan can still be decided.

    `unknown` are pointers to arguments that other calls will give; without any, both are the same.
    Nothing is locked: when the call is made it is decided for good.
    """
    facts = _facts_before_policy(tx, run)
    if call.refusal is None:
        facts = facts_of(tx, live, run, call.effect, call.known_tool, will_send=False)
        facts = _after(before, facts, call.effect)
    request = _request_of(call, facts, frozenset())
    world = _world_of(live, call)
    if isinstance(world, Decision):
        return (world, world), request
    return world.bounds(request, unknown=unknown), request


def target_of(run: Run, effect: Effect, tool: ToolVersion | None) -> Target:
    """Return a call as kill switches see it."""
    request = run.request
    return Target(
        tenant=effect.tenant,
        environment=effect.environment,
        department=request.department,
        workflow=request.workflow,
        seats=effect.seats,
        tool=effect.tool,
        system=None if tool is None else tool.system,
        is_write=effect.is_write,
    )


def stopping(tx: Tx, target: Target) -> Decision | None:
    """Return the deny of what a kill switch stops now, None if none does.

    Its reason has the switch in place of a policy, and nothing of why it was set: that is not for
    agents.
    """
    switch = switches.stopping(tx, target)
    if switch is None:
        return None
    message = "an operator has stopped calls of this kind"
    policy_id = topic_of(switch.switch_id)
    reason = Reason(code=STOPPED, message=message, policy_id=policy_id)
    return Decision(outcome=Outcome.DENY, reasons=(reason,))


def _facts_before_policy(tx: Tx, run: Run) -> Facts:
    return Facts(labels=run.labels, depth=run.request.depth, now_us=tx.now_us)


def _request_of(call: Call, facts: Facts, lifted: frozenset[str]) -> PolicyRequest:
    effect = call.effect
    return PolicyRequest(
        seats=effect.seats,
        environment=effect.environment,
        tool=effect.tool,
        tool_version=effect.tool_version,
        arguments=effect.arguments,
        facts=facts,
        lifted=lifted,
    )


def _world_of(live: Live, call: Call) -> World | Decision:
    """Return who decides the call, or why it is denied without asking."""
    refusal = _refused_before_policy(call)
    if refusal is not None:
        return deny(refusal.code, refusal.message)
    world = live.worlds.get(call.effect.environment)
    if world is None:
        return deny("policy.unavailable", "no policies are loaded for this environment")
    return world


def deny(code: str, message: str) -> Decision:
    """Return a deny that no policy gave."""
    return Decision(outcome=Outcome.DENY, reasons=(Reason(code=code, message=message),))


def call_digest_of(live: Live, run: Run, effect: Effect) -> str:
    """Return the digest that an approval binds to: whatever moves it voids the approval.

    It covers seats, user, tenant, environment, tool, version, pin, the version that is live,
    server, credentials, arguments, run, effect and the version of the policies that can match this
    call.
    """
    tool = live.release.tool_version(effect.tool, effect.tool_version)
    binding = (
        None if tool is None else live.release.bind(tool, effect.environment, run.request.workflow)
    )
    world = live.worlds.get(effect.environment)
    pinned = live.release.live(effect.tool, effect.environment)
    slices = [] if world is None else [world.slice_version(s, effect.tool) for s in effect.seats]
    return digest(
        {
            "seats": [str(seat) for seat in effect.seats],
            "user": run.request.user,
            "tenant": effect.tenant,
            "environment": effect.environment,
            "tool": effect.tool,
            "version": effect.tool_version,
            "pin": effect.pin,
            "live": None if pinned is None else pinned.version,
            "server": None if binding is None else live.digest_of(binding.server),
            "credentials": None if binding is None else binding.credentials,
            "arguments": effect.arguments,
            "run": run.run_id,
            "effect": effect.effect_id,
            "slices": to_json(slices),
        }
    )


def _after(before: Foreseen, facts: Facts, effect: Effect) -> Facts:
    """Return the facts as they will be once some calls are made."""
    same = before.tools.count(effect.tool)
    return replace(
        facts,
        labels=facts.labels.join(before.labels),
        calls_this_tool=facts.calls_this_tool + same,
        calls_this_tool_1h=facts.calls_this_tool_1h + same,
        writes_this_run=facts.writes_this_run + before.writes,
        done=facts.done | before.done,
    )


def _refused_before_policy(call: Call) -> Reason | None:
    if call.refusal is not None:
        return Reason(code=call.refusal.code, message=call.refusal.message)
    if call.binding is None or call.binding.pin != call.effect.pin:
        return Reason(code="tool.moved", message="the tool version is no longer bound here")
    if call.binding.is_quarantined:
        why = call.binding.reason or "its upstream changed"
        return Reason(code="tool.quarantined", message=f"the tool is quarantined: {why}")
    if call.binding.lacks_credentials:
        message = f"the tool has no credentials for the workflow `{call.effect.workflow}` here"
        return Reason(code="tool.no_credentials", message=message)
    return None
