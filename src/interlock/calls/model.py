"""Model requests: decided, priced and recorded like a call; none goes to an unpriced model."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from interlock.calls.durable import Durable, Retry
from interlock.calls.road import Live, Road
from interlock.calls.validate import KNOWN_S, budget_left, deny, reserve, stopping
from interlock.domain.budget import Budget, Cost, covering
from interlock.domain.canonical import Json
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.errors import (
    InterlockError,
    ModelBusyError,
    ModelFailedError,
    StepFailedError,
)
from interlock.domain.ids import DecisionId, StepName
from interlock.domain.principal import Seat
from interlock.domain.run import Run
from interlock.domain.switch import Target
from interlock.domain.trace import ModelUse, SpanStatus
from interlock.observe import emit
from interlock.store import budgets, decisions, ladder, runs, spans
from interlock.store.tx import Tx

_ONCE = Retry(attempts=1)
_NOTHING = Cost(micro_usd=0, calls=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One request: the name of its step, the model's name in the settings, and who asks.

    `input_tokens` are counted upwards, `output_tokens` the most that the answer may have; None if
    the request does not bound them. `retry` is for a model that is busy.
    """

    name: StepName
    model: str
    provider: str
    seats: tuple[Seat, ...]
    parent_span: str
    input_tokens: int
    output_tokens: int | None
    retry: Retry = _ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What the provider answered: the message as JSON, the model that answered, and its tokens.

    `error_code` if it broke off: it is paid for all the same. The tokens are estimated if the
    provider did not tell them.
    """

    body: Json
    model: str
    input_tokens: int
    output_tokens: int
    is_estimated: bool = False
    error_code: str | None = None


async def request_model(
    road: Road,
    durable: Durable,
    request: ModelRequest,
    send: Callable[[], Awaitable[ModelReply]],
) -> Json:
    """Return the recorded answer of this step, asking the model only if there is none.

    A busy model is asked again after growing pauses, each time decided anew: an attempt that may
    have been paid for is counted before the next one is reserved. Raises `StepFailedError` with
    code `model.denied` (policy, budget, or no price) or `model.failed`. A crash between the request
    and its record asks again: the model is then paid twice.
    """
    entry = durable.recorded(request.name)
    if entry is not None:
        return entry.value
    is_held = await _intend(road, durable, request, lost=None)
    # A wait of a parallel branch must not end the segment between send and record.
    with durable.in_flight():
        for pause_s in _pauses(request.retry):
            try:
                reply = await send()
                break
            except InterlockError as error:
                lost = _NOTHING if _is_unpaid(error) else None
                if pause_s is None or not isinstance(error, ModelBusyError):
                    raise await _failed(durable, request, error, lost) from error
            await asyncio.sleep(pause_s)
            is_held = await _intend(road, durable, request, lost=lost)
        return await durable.commit(
            request.name,
            lambda tx: _record(tx, durable.run, road, request, reply, is_held=is_held),
            kind="model.outcome",
        )


async def _failed(
    durable: Durable, request: ModelRequest, error: InterlockError, cost: Cost | None
) -> StepFailedError:
    """Write that a request failed for good; return what says so."""
    await durable.transact("model.failed", lambda tx: _fail(tx, durable.run, request, cost))
    return StepFailedError(error.message, error_code="model.failed", step_name=request.name)


def _pauses(retry: Retry) -> Iterator[float | None]:
    """Yield how long to wait after each attempt that may be followed by another, None at last."""
    pause_s = retry.initial_s
    for _ in range(retry.attempts - 1):
        yield pause_s * random.uniform(0.5, 1.5)  # noqa: S311  # spreads load
        pause_s = min(pause_s * 2, retry.max_s)
    yield None


def _is_unpaid(error: InterlockError) -> bool:
    return isinstance(error, ModelBusyError | ModelFailedError) and error.is_unpaid


async def _intend(
    road: Road, durable: Durable, request: ModelRequest, *, lost: Cost | None
) -> bool:
    """Write that a request will be sent; return whether budgets hold what it may cost.

    `lost` is what the attempt before cost, None if that is not known. Raises `StepFailedError`.
    """
    began_s = time.monotonic()
    decision, is_held = await durable.transact(
        "model.intent", lambda tx: _begin(tx, road.live.at(tx), durable.run, road, request, lost)
    )
    if time.monotonic() - began_s > KNOWN_S:
        target = _target_of(durable.run, request)
        stopped = await durable.read(lambda tx: stopping(tx, target))
        if stopped is not None and is_held:
            holder = _holder(durable.run, request)
            await durable.transact("model.stopped", lambda tx: budgets.settle(tx, holder, _NOTHING))
        decision = stopped or decision
    if decision.outcome is Outcome.ALLOW:
        return is_held
    why = "; ".join(reason.message for reason in decision.reasons)
    raise StepFailedError(
        f"the model `{request.model}` may not be asked: {why}",
        error_code="model.denied",
        step_name=request.name,
    )


def _begin(  # noqa: PLR0917  # as a transaction has them at hand
    tx: Tx, live: Live, run: Run, road: Road, request: ModelRequest, lost: Cost | None
) -> tuple[Decision, bool]:
    """Decide a request; return the decision, and whether budgets hold what it may cost."""
    # What an attempt before, or before a crash, was to cost may have been spent.
    budgets.settle(tx, _holder(run, request), lost)
    facts = Facts(
        labels=runs.get(tx, run.run_id).labels,
        depth=run.request.depth,
        budget_left_micros=budget_left(tx, live, run),
        now_us=tx.now_us,
    )
    question = PolicyRequest(
        seats=request.seats,
        environment=run.request.environment,
        tool=None,
        model=request.model,
        arguments={},
        facts=facts,
    )
    world = live.worlds.get(run.request.environment)
    covered = covering(live.release.budgets.values(), run)
    stopped = stopping(tx, _target_of(run, request))
    if stopped is not None:
        decision = stopped
    elif road.price(request.model, 0, 0) is None:
        decision = deny(
            "budget.unpriced",
            f"the model `{request.model}` has no price; declare one in the settings",
        )
    elif world is None:
        decision = deny("policy.unavailable", "no policies are loaded for this environment")
    else:
        decision = world.decide(question)
        if decision.outcome is Outcome.ALLOW and covered:
            decision = _reserve(tx, covered, run, road, request) or decision
    decisions.put(
        tx,
        decision_id=DecisionId(tx.new_id()),
        run_id=run.run_id,
        effect_id=None,
        decision=decision,
        request=question,
        tool=f"model:{request.model}",
        tool_version=None,
    )
    ladder.after_denial(tx, run, decision)
    span = emit.model_span(
        run.run_id,
        request.name,
        parent_key=request.parent_span,
        provider=request.provider,
        model=request.model,
        start_us=tx.now_us,
    )
    spans.put(tx, span)
    is_held = decision.outcome is Outcome.ALLOW and bool(covered)
    return decision, is_held


def _reserve(
    tx: Tx, covered: tuple[Budget, ...], run: Run, road: Road, request: ModelRequest
) -> Decision | None:
    output_tokens = request.output_tokens
    if output_tokens is None:
        if any(budget.unit != "calls" for budget in covered):
            return deny(
                "budget.unpriced",
                f"the request to `{request.model}` does not bound its answer, so it has no highest"
                " price; give the most tokens that it may have",
            )
        output_tokens = 0
    price = road.price(request.model, request.input_tokens, output_tokens)
    # INVARIANT: `_begin` refused the request if its model has no price.
    assert price is not None
    cost = Cost(micro_usd=price.micro_usd, tokens=request.input_tokens + output_tokens)
    return reserve(tx, covered, run, holder=_holder(run, request), cost=cost, is_forced=False)


def _holder(run: Run, request: ModelRequest) -> str:
    return f"{run.run_id}/{request.name}"


def _target_of(run: Run, request: ModelRequest) -> Target:
    of = run.request
    return Target(
        tenant=of.tenant,
        environment=of.environment,
        department=of.department,
        workflow=of.workflow,
        seats=request.seats,
        model=request.model,
    )


def _record(
    tx: Tx, run: Run, road: Road, request: ModelRequest, reply: ModelReply, *, is_held: bool
) -> Json:
    price = road.price(request.model, reply.input_tokens, reply.output_tokens)
    # INVARIANT: `_begin` refused the request if its model has no price.
    assert price is not None
    use = ModelUse(
        run_id=run.run_id,
        span_key=request.name,
        provider=request.provider,
        model=reply.model,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_micro_usd=price.micro_usd,
        price_version=price.version,
        is_estimated=reply.is_estimated,
        at_us=tx.now_us,
    )
    spans.put_model_use(tx, use)
    tokens = reply.input_tokens + reply.output_tokens
    if is_held:
        cost = Cost(micro_usd=price.micro_usd, tokens=tokens)
        closed = budgets.settle(tx, _holder(run, request), cost)
        if closed:
            of, why = run.request, f"a bill of its model closed the budget `{closed[0]}`"
            ladder.violated(tx, of.workflow, of.environment, why)
    spans.close(
        tx,
        run.run_id,
        request.name,
        end_us=tx.now_us,
        status=SpanStatus.OK if reply.error_code is None else SpanStatus.ERROR,
        error_code=reply.error_code,
        cost_micro_usd=price.micro_usd,
        attributes=emit.model_outcome(use),
    )
    return reply.body


def _fail(tx: Tx, run: Run, request: ModelRequest, cost: Cost | None) -> None:
    budgets.settle(tx, _holder(run, request), cost)
    spans.close(
        tx,
        run.run_id,
        request.name,
        end_us=tx.now_us,
        status=SpanStatus.ERROR,
        error_code="model.failed",
        attributes={},
    )
