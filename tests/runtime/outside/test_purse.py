"""What a session may ask of models: a number, and a sum that no parallel requests overrun."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from interlock.calls.model import ModelReply
from interlock.domain.errors import BudgetSpentError, ModelFailedError, StepFailedError
from interlock.domain.ids import RunId
from interlock.domain.trace import SpanKind, SpanStatus
from interlock.runtime.outside.desk import ModelAsked
from interlock.store import spans
from interlock.testing.recorder_project import session_files
from tests.runtime.outside.session_bench import LIMIT_S, SessionBench

PROJECT = dict(session_files("http://127.0.0.1:9"))
PROJECT["agents/helper.yaml"] += "models: [small]\nbudget: {requests: 3, cost_micro_usd: 100}\n"


@pytest.fixture
def bench(default_database_url: str) -> Iterator[SessionBench]:
    """Sessions that may make 3 requests for 100 micro-USD, which is what a token costs."""
    with SessionBench(default_database_url, PROJECT) as opened:
        yield opened


class Model:
    """Answers with 10 tokens for 20, once it is let."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = 0

    async def send(self) -> ModelReply:
        """Answer."""
        self.asked += 1
        await self.may_answer.wait()
        return ModelReply(body="hello", model="small-2", input_tokens=20, output_tokens=10)


def asked(key: str, model: Model, *, most: int | None = 30) -> ModelAsked:
    """Return a request of at most 20 tokens and `most` of the answer."""
    return ModelAsked(
        key=key,
        model="small",
        provider="tests",
        input_tokens=20,
        output_tokens=most,
        send=model.send,
    )


def answering() -> Model:
    """Return a model that answers at once."""
    model = Model()
    model.may_answer.set()
    return model


def spent(bench: SessionBench, run_id: RunId) -> int:
    """Return what a session has cost."""
    with bench.db.reading() as tx:
        return spans.model_cost_of(tx, run_id)


def test_a_request_is_a_step_of_the_session(bench: SessionBench) -> None:
    """Its span is below the agent's, with what it cost."""
    run_id = bench.open().run_id

    answer = bench.ask(run_id, asked("a", answering())).result(LIMIT_S)

    with bench.db.reading() as tx:
        traced = {span.key: span for span in spans.list_for_run(tx, run_id)}
    assert "hello" == answer
    assert (SpanKind.MODEL, "helper", 30) == (
        traced["model/a"].kind,
        traced["model/a"].parent_key,
        traced["model/a"].cost_micro_usd,
    )


def test_requests_are_counted_also_over_a_rest(bench: SessionBench) -> None:
    """Whoever owns the session next knows how many there were, and what they cost."""
    run_id, model = bench.open().run_id, answering()
    for key in "ab":
        bench.ask(run_id, asked(key, model)).result(LIMIT_S)
    bench.rest(run_id)

    with pytest.raises(BudgetSpentError, match="and 40 of"):
        bench.ask(run_id, asked("c", model)).result(LIMIT_S)
    bench.ask(run_id, asked("d", model, most=1)).result(LIMIT_S)
    with pytest.raises(BudgetSpentError, match="3 model requests"):
        bench.ask(run_id, asked("f", model, most=1)).result(LIMIT_S)

    assert 3 == model.asked


def test_what_is_under_way_is_held(bench: SessionBench) -> None:
    """A third request of 50 does not fit beside two; once they cost less it does."""
    run_id, model = bench.open().run_id, Model()
    first = [bench.ask(run_id, asked(key, model)) for key in "ab"]
    with pytest.raises(BudgetSpentError, match="may cost 50"):
        bench.ask(run_id, asked("c", model)).result(LIMIT_S)
    bench.engine.submit(_let(model)).result(LIMIT_S)
    for one in first:
        one.result(LIMIT_S)

    bench.ask(run_id, asked("d", model, most=20)).result(LIMIT_S)

    assert 90 == spent(bench, run_id)


def test_a_sum_wants_a_bound(bench: SessionBench) -> None:
    """What an answer may cost cannot be held if the request does not say how long it gets."""
    with pytest.raises(BudgetSpentError, match="max_tokens"):
        bench.ask(bench.open().run_id, asked("a", answering(), most=None)).result(LIMIT_S)


def test_a_failure_gives_back_what_was_held(bench: SessionBench) -> None:
    """Nobody is paid for it, and its span says that it failed."""
    run_id, model = bench.open().run_id, answering()

    async def fail() -> ModelReply:
        raise ModelFailedError("it is down")

    failing = ModelAsked(
        key="a", model="small", provider="tests", input_tokens=20, output_tokens=80, send=fail
    )
    with pytest.raises(StepFailedError, match="it is down"):
        bench.ask(run_id, failing).result(LIMIT_S)
    bench.ask(run_id, asked("b", model, most=80)).result(LIMIT_S)

    with bench.db.reading() as tx:
        (failed,) = (span for span in spans.list_for_run(tx, run_id) if span.key == "model/a")
    assert (SpanStatus.ERROR, "model.failed") == (failed.status, failed.error_code)
    assert 30 == spent(bench, run_id)


async def _let(model: Model) -> None:
    model.may_answer.set()
