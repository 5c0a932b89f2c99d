from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_ai.exceptions import (
    ModelConnectionError,
    ModelHTTPError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel

from interlock.agents.models import ModelCatalog
from interlock.calls.durable import Retry
from interlock.config import ModelSettings
from interlock.domain.budget import Budget
from interlock.domain.errors import ModelFailedError
from interlock.domain.ids import AgentName
from interlock.domain.run import Run, RunState
from interlock.domain.workflow import Step
from interlock.store import budgets
from interlock.testing.model import ScriptedModel
from tests.runtime.plane import FIND as FIND_TOOL
from tests.runtime.plane import (
    ModelFunction,
    Plane,
    agent,
    calls,
    open_plane,
    release,
    text,
    workflow,
)

STEP = Step(name="solve", agent=AgentName("solver"))
TOKENS = Budget(
    name="tokens",
    title="Tokens",
    scope="department",
    of="it",
    period="day",
    unit="tokens",
    limit=1_000_000,
)
SCRIPT = """
model: tiny
rules:
  - {rule: busy, prompt: busy, times: 1, fault: 429}
  - {rule: down, prompt: down, fault: 500}
  - {rule: cut, prompt: cut, text: a rather long answer, fault: cut}
  - {rule: find, turn: 1, calls: [{tool: desk.issue.find, arguments: {title: vpn}}]}
  - {rule: answer, text: "found {{tool:desk.issue.find/found}}", usage: {input: 7, output: 3}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedModel]:
    """A model server that speaks OpenAI's protocol over HTTP."""
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    with ScriptedModel(script, folder=tmp_path) as running:
        yield running


def settings(provider: str = "openai-chat:tiny", **more: str) -> ModelSettings:
    """Return the settings of the model `default`."""
    return ModelSettings(
        name="default",
        provider=provider,
        base_url=more.get("base_url"),
        api_key=more.get("api_key"),
    )


def served(tmp_path: Path, server: ScriptedModel, prompt: str) -> tuple[Run, Plane]:
    """Run an agent against the server and return the run, and the plane after its end."""
    catalog = ModelCatalog(
        {"default": settings(base_url=server.base_url)}, retry=Retry(initial_s=0.0)
    )
    with open_plane(tmp_path, catalog=catalog) as plane:
        plane.apply(release(workflow(STEP), agent("solver")))
        run = plane.get(plane.start({"title": prompt}))
        return run, plane


def asked(tmp_path: Path, model: ModelFunction) -> Run:
    """Run an agent on a model function and return the run."""
    with open_plane(tmp_path, solver=model) as plane:
        plane.apply(release(workflow(STEP), agent("solver")))
        return plane.get(plane.start())


def test_an_openai_compatible_server_serves_an_agent(tmp_path: Path, server: ScriptedModel) -> None:
    """Tool calls and the final answer travel over HTTP."""
    run, plane = served(tmp_path, server, "vpn")

    assert {"solve": "found vpn"} == run.output
    assert ["vpn"] == plane.desk.asked


def test_a_busy_model_is_asked_again(tmp_path: Path, server: ScriptedModel) -> None:
    """A 429 is not the end of a run."""
    run, _ = served(tmp_path, server, "busy")

    assert RunState.SUCCEEDED is run.state


@pytest.mark.parametrize("prompt", ["down", "cut"])
def test_a_model_that_stays_away_fails_the_step(
    tmp_path: Path, server: ScriptedModel, prompt: str
) -> None:
    """After the last attempt the step fails, with a code that a failure mode can match."""
    run, _ = served(tmp_path, server, prompt)

    assert (RunState.FAILED, "model.failed") == (run.state, run.error_code)


def test_only_errors_that_may_pass_are_asked_again(tmp_path: Path) -> None:
    """A refusal of the request itself is final at once."""
    attempts: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        attempts.append("asked")
        if len(attempts) == 1:
            raise ModelConnectionError("function", "no route")
        raise ModelHTTPError(status_code=400, model_name="function", body=None)

    run = asked(tmp_path, model)

    assert (RunState.FAILED, "model.failed") == (run.state, run.error_code)
    assert ["asked", "asked"] == attempts


def bounded(
    folder: Path, model: ModelFunction, *, attempts: int = 3
) -> tuple[Run, tuple[int, int]]:
    """Run an agent whose answers have at most 77 tokens; return what is spent and held of them."""
    built = FunctionModel(model)
    catalog = ModelCatalog(
        {"default": replace(settings(), max_output_tokens=77)},
        built={"default": built},
        retry=Retry(attempts=attempts, initial_s=0.0),
    )
    with open_plane(folder, catalog=catalog) as plane:
        plane.apply(replace(release(workflow(STEP), agent("solver")), budgets={"tokens": TOKENS}))
        run = plane.get(plane.start())
        with plane.db.reading() as tx:
            return run, budgets.totals(tx)["tokens"]


def test_an_answer_is_bounded_by_the_settings(tmp_path: Path) -> None:
    """The most that it may have is sent with the request and held; counted is what it had."""
    sent: list[object] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        sent.append((info.model_settings or {}).get("max_tokens"))
        return text("done")

    run, (spent, held) = bounded(tmp_path, model)

    assert (RunState.SUCCEEDED, [77], 0) == (run.state, sent, held)
    assert 0 < spent < 77


@pytest.mark.parametrize(
    ("error", "is_unpaid"),
    [
        (ModelHTTPError(status_code=400, model_name="m"), True),
        (ModelHTTPError(status_code=429, model_name="m"), True),
        (ModelHTTPError(status_code=503, model_name="m"), True),
        (ModelHTTPError(status_code=500, model_name="m"), False),
        (ModelConnectionError("m", "no route", phase="connect"), True),
        (ModelConnectionError("m", "reset", phase="read"), False),
        (ModelConnectionError("m", "closed"), False),
        (UnexpectedModelBehavior("nonsense"), False),
    ],
)
def test_only_what_was_turned_away_or_never_left_is_free(
    tmp_path: Path, error: Exception, *, is_unpaid: bool
) -> None:
    """All else may have been billed, so what was held counts."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise error

    run, (spent, held) = bounded(tmp_path, model, attempts=1)

    assert (RunState.FAILED, 0) == (run.state, held)
    assert is_unpaid == (spent == 0)


def test_a_recorded_response_survives_its_round_trip(tmp_path: Path) -> None:
    """The model sees its own calls again as it made them."""
    seen: list[ModelMessage] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return calls((FIND_TOOL, {"title": "vpn"}))
        seen.extend(messages)
        return text("done")

    asked(tmp_path, model)

    response = seen[1]
    assert isinstance(response, ModelResponse)
    assert [{"title": "vpn"}] == [call.args for call in response.tool_calls]


def test_clients_are_kept() -> None:
    """A model has one client, whoever asks."""
    catalog = ModelCatalog({"default": settings(base_url="http://127.0.0.1:1/v1")})

    first, second = catalog.get("default"), catalog.get("default")
    asyncio.run(catalog.aclose())

    assert first is second


def test_an_unknown_model_names_those_that_are_configured() -> None:
    """The error says what could be meant."""
    catalog = ModelCatalog({"default": settings()})

    with pytest.raises(ModelFailedError, match=r"`large`.*configured are: `default`"):
        catalog.get("large")


@pytest.mark.parametrize("provider", ["nobody:tiny", "openai-chat:tiny"])
def test_settings_that_cannot_work_are_told(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """An unknown vendor, or a vendor without its key, is an error with the model's name."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    catalog = ModelCatalog({"default": settings(provider)})

    with pytest.raises(ModelFailedError, match="the model `default` cannot be used"):
        catalog.get("default")


def test_a_key_is_taken_by_reference() -> None:
    """The key is looked up when the client is made, and never part of the settings."""
    asked_for: list[str] = []

    def resolve(reference: str) -> str:
        asked_for.append(reference)
        return "sk-test"

    reference = "secret://openai/dev/key"
    catalog = ModelCatalog({"default": settings(api_key=reference)}, resolve=resolve)
    catalog.get("default")
    asyncio.run(catalog.aclose())

    assert [reference] == asked_for


def test_a_rotated_key_counts_at_once() -> None:
    """The client stays while its key does, and is made anew with another."""
    keys = ["sk-old", "sk-old", "sk-new"]
    catalog = ModelCatalog(
        {"default": settings(api_key="secret://openai/dev/key")}, resolve=lambda _: keys.pop(0)
    )

    first, same, other = (catalog.get("default") for _ in range(3))
    asyncio.run(catalog.aclose())

    assert first is same
    assert first is not other


def test_a_local_server_is_not_reached_from_production() -> None:
    """Plain http is for this machine, in dev."""
    local = settings(base_url="http://127.0.0.1:1/v1")
    catalog = ModelCatalog({"default": local}, environment="prod")

    with pytest.raises(ModelFailedError, match="cannot be used"):
        catalog.get("default")
