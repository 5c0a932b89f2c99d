"""Model requests: decided and priced before they are asked, recorded once, asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from interlock.calls import model
from interlock.calls.durable import Retry
from interlock.calls.model import ModelReply, ModelRequest, request_model
from interlock.calls.road import Live, LiveProject, Price
from interlock.domain.canonical import Json
from interlock.domain.decision import Outcome
from interlock.domain.errors import ModelBusyError, ModelFailedError, StepFailedError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import RunState
from interlock.domain.switch import Scope
from interlock.domain.trace import Span, SpanStatus
from interlock.policy.engine import ModelResource
from interlock.runtime import control
from interlock.runtime.durable.segment import Segment
from interlock.store import budgets, decisions, spans
from interlock.store.decisions import RecordedDecision
from interlock.store.tx import Tx
from interlock.testing.recorder_project import files
from tests.calls.call_bench import CallBench, seat_of
from tests.road_bench import DANA

UNUSED = {
    path: ""
    for path in files("http://x")
    if any(name in path for name in ("_linked", "_probed", "_blind", "conditional", "call_read"))
}
STEP = StepName("answer/turn.1")
BUDGET = """
interlock: v1
kind: Budget
name: tokens
title: Tokens of the department
scope: department
of: it
period: day
unit: tokens
limit: {limit}
"""


class ModelBench(CallBench):
    """A plane with one model, `small`, that answers with what was asked of it before."""

    def __init__(self, url: str, *, budget: str = "") -> None:
        super().__init__(url, edits=UNUSED | {"budgets/tokens.yaml": budget})
        resource = ModelResource(name="small", external=False, accepts=frozenset())
        self.road = replace(self.road, live=LiveProject({"small": resource}), price=_price)
        self.asked_models: list[str] = []
        self.error: Exception | None = None
        self.on_ask: Callable[[], object] = lambda: None
        self.output_tokens: int | None = 50

    async def request(self, durable: Segment, *, model: str = "small") -> Json:
        """Send one request under one name, from inside a body."""

        async def send() -> ModelReply:
            self.asked_models.append(model)
            self.on_ask()
            if self.error is not None:
                raise self.error
            body: Json = {"n": len(self.asked_models)}
            return ModelReply(body=body, model="small-2", input_tokens=30, output_tokens=12)

        request = ModelRequest(
            name=STEP,
            model=model,
            provider="tests",
            seats=(seat_of(durable),),
            parent_span="run",
            input_tokens=100,
            output_tokens=self.output_tokens,
            retry=Retry(attempts=3, initial_s=0.0),
        )
        return await request_model(self.road, durable, request, send)

    def ask(self, *, model: str = "small") -> RunId:
        """Run a body that sends one request; a failure's code is the run's output."""

        async def body(durable: Segment) -> Json:
            try:
                return await self.request(durable, model=model)
            except StepFailedError as error:
                return [error.error_code, error.message, error.step_name]

        self.body = body
        return self.call("keyed")

    def decisions(self, run_id: RunId) -> list[RecordedDecision]:
        """Return the decisions of a run."""
        with self.db.reading() as tx:
            return decisions.list_for_run(tx, run_id)

    def span(self, run_id: RunId) -> Span:
        """Return the span of the request."""
        with self.db.reading() as tx:
            [span] = [span for span in spans.list_for_run(tx, run_id) if span.key == STEP]
        return span

    def stands(self) -> tuple[int, int]:
        """Return how many tokens are spent, and how many held."""
        with self.db.reading() as tx:
            return budgets.totals(tx).get("tokens", (0, 0))

    def cost(self, run_id: RunId) -> int:
        """Return what the run has cost."""
        with self.db.reading() as tx:
            return spans.cost_of_tree(tx, run_id)


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[ModelBench]:
    """Run a plane with one model."""
    with ModelBench(sqlite_url) as running:
        yield running


def test_a_request_is_decided_asked_priced_and_recorded(bench: ModelBench) -> None:
    """The price is that of the tokens that were used."""
    run_id = bench.ask()

    [decided] = bench.decisions(run_id)
    span = bench.span(run_id)
    assert {"n": 1} == bench.get(run_id).output
    assert (Outcome.ALLOW, "model:small", None) == (
        decided.decision.outcome,
        decided.tool,
        decided.tool_version,
    )
    assert (SpanStatus.OK, 42) == (span.status, span.cost_micro_usd)
    assert span.end_us is not None
    assert 42 == bench.cost(run_id)


def test_a_recorded_answer_asks_nothing(bench: ModelBench) -> None:
    """A replay after a wait gets the recorded answer, is not decided again and pays nothing."""

    async def body(durable: Segment) -> Json:
        answer = await bench.request(durable)
        await durable.sleep(StepName("pause"), await durable.now_us(StepName("now")) + 60_000_000)
        return answer

    bench.body = body
    run_id = bench.call("keyed")
    before = bench.get(run_id).state

    bench.engine.advance(61)

    assert (RunState.WAITING, RunState.SUCCEEDED) == (before, bench.get(run_id).state)
    assert {"n": 1} == bench.get(run_id).output
    assert (["small"], 1, 42) == (
        bench.asked_models,
        len(bench.decisions(run_id)),
        bench.cost(run_id),
    )


def test_a_crash_before_the_record_asks_again(bench: ModelBench) -> None:
    """The answer of the lost owner is not recorded; that of the new one is."""
    bench.on_ask = lambda: _steal(bench)

    run_id = bench.ask()

    assert {"n": 2} == bench.get(run_id).output
    assert ["small", "small"] == bench.asked_models
    assert 42 == bench.cost(run_id)


def test_a_model_without_a_price_is_not_asked(bench: ModelBench) -> None:
    """Its cost could not be bounded."""
    bench.road = replace(bench.road, price=lambda _model, _given, _taken: None)

    run_id = bench.ask()

    _is_denied(bench, run_id, "budget.unpriced")
    assert "declare one in the settings" in str(bench.get(run_id).output)


def test_a_model_that_is_not_configured_is_not_asked(bench: ModelBench) -> None:
    """Policy knows only the models of the settings; the refusal is on record."""
    run_id = bench.ask(model="large")

    _is_denied(bench, run_id, "model.unknown")


def test_a_model_that_policy_forbids_is_not_asked(bench: ModelBench) -> None:
    """A request is decided like a call."""
    guardrail = (
        '@id("no-models") @why("Not here")\n'
        'forbid (principal, action in Action::"model", resource);'
    )
    project = {path: text for path, text in files("http://x").items() if path not in UNUSED}
    bench.apply(project | {"policies/guardrails/models.cedar": guardrail})

    run_id = bench.ask()

    _is_denied(bench, run_id, "policy.denied")


def test_without_policies_no_model_is_asked(bench: ModelBench) -> None:
    """An environment whose policies do not load denies everything."""
    bench.road = replace(bench.road, live=_NoWorlds({}))

    run_id = bench.ask()

    _is_denied(bench, run_id, "policy.unavailable")


def test_a_model_that_fails_fails_the_step(bench: ModelBench) -> None:
    """The span says so, nothing is recorded under the step's name, and nothing is paid."""
    bench.error = ModelFailedError("the model answered with status 400")

    run_id = bench.ask()

    span = bench.span(run_id)
    assert ["model.failed", "the model answered with status 400", STEP] == bench.get(run_id).output
    assert (SpanStatus.ERROR, "model.failed") == (span.status, span.error_code)
    assert 0 == bench.cost(run_id)


class _NoWorlds(LiveProject):
    """A project whose policies load in no environment."""

    def at(self, tx: Tx) -> Live:
        """Return what is live, without worlds."""
        return replace(super().at(tx), worlds={})


def _is_denied(bench: ModelBench, run_id: RunId, code: str) -> None:
    output = bench.get(run_id).output
    assert isinstance(output, list)
    assert ["model.denied", STEP] == [output[0], output[2]]
    [decided] = bench.decisions(run_id)
    assert Outcome.DENY is decided.decision.outcome
    assert decided.decision.reasons[0].code.startswith(code)
    assert [] == bench.asked_models
    assert 0 == bench.cost(run_id)


def _steal(bench: ModelBench) -> None:
    """Let another worker take the run over while the model is asked; once."""
    bench.on_ask = lambda: None
    bench.steal()


def _price(_model: str, given: int, taken: int) -> Price:
    return Price(micro_usd=given + taken, version="test")


@pytest.mark.parametrize("when", ["before", "after the decision"])
def test_a_stopped_model_is_not_asked(
    bench: ModelBench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also if the switch was set while the decision was being committed, which took long."""

    def stop() -> None:
        control.set_switch(
            bench.db,
            bench.road.live.at,
            Scope(model="small"),
            by=DANA,
            reason="a test",
            for_us=None,
            models=("small",),
        )

    if when == "before":
        stop()
    else:
        monkeypatch.setattr(model, "KNOWN_S", -1.0)
        bench.points.at("model.intent.after", None, stop)

    run_id = bench.ask()

    why = "the model `small` may not be asked: an operator has stopped calls of this kind"
    assert ["model.denied", why, STEP] == bench.get(run_id).output
    assert [] == bench.asked_models


@pytest.fixture
def paid(sqlite_url: str) -> Iterator[ModelBench]:
    """Run a plane whose requests may need 150 tokens each, and that may spend 320 in a day."""
    with ModelBench(sqlite_url, budget=BUDGET.format(limit=320)) as running:
        yield running


def test_a_request_is_paid_from_budgets_by_what_it_used(paid: ModelBench) -> None:
    """Held for the most that it may need, then counted as it was billed."""
    held: list[tuple[int, int]] = []
    paid.on_ask = lambda: held.append(paid.stands())

    paid.ask()

    assert ([(0, 150)], (42, 0)) == (held, paid.stands())


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (ModelFailedError("status 400", is_unpaid=True), 0),
        (ModelFailedError("nonsense came back"), 150),
    ],
)
def test_a_failed_request_counts_unless_it_was_turned_away(
    paid: ModelBench, error: ModelFailedError, spent: int
) -> None:
    """Nobody knows what silence or nonsense cost, so all that was held counts."""
    paid.error = error

    run_id = paid.ask()

    assert (["small"], (spent, 0)) == (paid.asked_models, paid.stands())
    assert "model.failed" in str(paid.get(run_id).output)


def test_each_lost_attempt_is_counted_before_the_next_one(paid: ModelBench) -> None:
    """Two of three attempts fit; the third is refused, with what is left."""
    paid.error = ModelBusyError("no answer")

    run_id = paid.ask()

    assert (["small", "small"], (300, 0)) == (paid.asked_models, paid.stands())
    assert "the budget `tokens` has 20 of 320 tokens left" in str(paid.get(run_id).output)
    allowed = [each.decision.outcome for each in paid.decisions(run_id)]
    assert [Outcome.ALLOW, Outcome.ALLOW, Outcome.DENY] == allowed


def test_attempts_that_were_turned_away_cost_nothing(paid: ModelBench) -> None:
    """All are made, and nothing is counted."""
    paid.error = ModelBusyError("status 429", is_unpaid=True)

    run_id = paid.ask()

    assert (["small"] * 3, (0, 0)) == (paid.asked_models, paid.stands())
    assert "model.failed" in str(paid.get(run_id).output)


def test_what_was_held_before_a_crash_is_counted(paid: ModelBench) -> None:
    """The model may have answered whom nobody heard any more."""
    paid.on_ask = lambda: _steal(paid)

    run_id = paid.ask()

    assert {"n": 2} == paid.get(run_id).output
    assert (150 + 42, 0) == paid.stands()


def test_a_request_without_a_bound_is_refused_where_tokens_are_counted(paid: ModelBench) -> None:
    """What it may cost is not known."""
    paid.output_tokens = None

    run_id = paid.ask()

    _is_denied(paid, run_id, "budget.unpriced")
    assert (0, 0) == paid.stands()


def test_a_stop_between_two_attempts_holds(paid: ModelBench) -> None:
    """Each attempt is decided anew, so a switch that came meanwhile stops the next one."""
    paid.error = ModelBusyError("no answer")
    paid.on_ask = lambda: control.set_switch(
        paid.db,
        paid.road.live.at,
        Scope(model="small"),
        by=DANA,
        reason="a test",
        for_us=None,
        models=("small",),
    )

    run_id = paid.ask()

    assert (["small"], (150, 0)) == (paid.asked_models, paid.stands())
    assert "an operator has stopped calls of this kind" in str(paid.get(run_id).output)
