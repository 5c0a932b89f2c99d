"""The scripted model as a server: protocol, faults, and how it starts and ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from interlock.domain.canonical import Json
from interlock.domain.errors import UnavailableError
from interlock.testing.model import ScriptedModel

SCRIPT = """
model: tiny
rules:
  - {rule: limit, prompt: limit, fault: 429}
  - {rule: broken, prompt: broken, fault: 500}
  - {rule: cut, prompt: cut, text: a rather long answer, fault: cut}
  - {rule: slow, prompt: slow, text: late, latency_s: 0.05}
  - {rule: call, prompt: call, calls: [{tool: desk.search, arguments: {title: vpn}}]}
  - {rule: text, prompt: hello, text: hi, usage: {input: 5, output: 2}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedModel]:
    """A running model with the script above."""
    folder = tmp_path_factory.mktemp("model")
    script = folder / "script.yaml"
    script.write_text(SCRIPT)
    with ScriptedModel(script, folder=folder) as server:
        yield server


def ask(model: ScriptedModel, prompt: str, **more: Json) -> httpx2.Response:
    """Send one chat request."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], **more}
    return httpx2.post(f"{model.base_url}/chat/completions", json=body)


def test_text_answer_has_the_protocol_shape(model: ScriptedModel) -> None:
    """Choice, finish reason and usage are where OpenAI clients look for them."""
    answer = ask(model, "hello").json()

    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert [{**choice, "finish_reason": "stop"}] == answer["choices"]
    assert usage == answer["usage"]
    assert ("chat.completion", "tiny") == (answer["object"], answer["model"])


def test_tool_call_has_the_protocol_shape(model: ScriptedModel) -> None:
    """Dots of tool names become two underscores and arguments are JSON text."""
    choice = ask(model, "call").json()["choices"][0]

    function = choice["message"]["tool_calls"][0]["function"]
    assert "tool_calls" == choice["finish_reason"]
    assert "desk__search" == function["name"]
    assert {"title": "vpn"} == json.loads(function["arguments"])


def test_equal_requests_get_equal_answers(model: ScriptedModel) -> None:
    """Ids follow from the request: nothing but the time of the answer differs."""
    first, second = (ask(model, "call").json() | {"created": 0} for _ in range(2))

    assert first == second


def test_faults_are_answered_as_written(model: ScriptedModel) -> None:
    """A script can ask for 429 with a delay, 500, and an answer that breaks off."""
    limited, broken, cut = (ask(model, word) for word in ("limit", "broken", "cut"))

    assert (429, "1") == (limited.status_code, limited.headers["Retry-After"])
    assert 500 == broken.status_code
    assert 200 == cut.status_code
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(cut.content)


def test_latency_is_kept(model: ScriptedModel) -> None:
    """An answer with a latency does not come earlier."""
    answer = ask(model, "slow")

    assert answer.elapsed.total_seconds() >= 0.05


def test_request_without_a_rule_is_a_server_error(model: ScriptedModel) -> None:
    """The message names the last message, so that the script can be mended."""
    answer = ask(model, "printer")

    assert 500 == answer.status_code
    assert "whose last message is `printer`" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"messages": [], "stream": true}'])
def test_request_of_another_shape_is_refused(model: ScriptedModel, body: str) -> None:
    """Broken JSON, no messages and streaming are 400, never a guess."""
    answer = httpx2.post(f"{model.base_url}/chat/completions", content=body)

    assert 400 == answer.status_code


def test_models_and_requests_are_listed(model: ScriptedModel) -> None:
    """The model names itself, and tells which rules have answered."""
    ask(model, "hello")

    models = httpx2.get(f"{model.base_url}/models").json()
    requests = httpx2.get(f"{model.url}/requests").json()

    assert ["tiny"] == [entry["id"] for entry in models["data"]]
    assert "text" in requests["rules"]
    assert 404 == httpx2.get(f"{model.url}/nothing").status_code
    assert 404 == httpx2.post(f"{model.url}/nothing").status_code


def test_broken_script_does_not_start(tmp_path: Path) -> None:
    """The program ends and says what is wrong where."""
    script = tmp_path / "script.yaml"
    script.write_text("rules:\n  - rule: a\n    txet: b\n")

    with pytest.raises(UnavailableError, match=r"script\.yaml:3: extra inputs"):
        ScriptedModel(script, folder=tmp_path).start()


def test_stop_and_start_keep_the_port(tmp_path: Path) -> None:
    """A server that was stopped comes back under its address."""
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    server = ScriptedModel(script, folder=tmp_path)

    server.start()
    before = server.url
    server.stop()
    server.start()
    status = ask(server, "hello").status_code
    server.stop()

    assert (before, 200) == (server.url, status)
