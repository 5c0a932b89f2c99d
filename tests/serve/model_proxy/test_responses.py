"""OpenAI's responses: to the stock client as from the provider, and nothing kept there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from httpx2 import ServerSentEvent
from openai import BadRequestError, InternalServerError, OpenAI

from interlock.domain.errors import InputError
from interlock.domain.trace import SpanStatus
from interlock.serve.model_proxy.responses import OpenAiResponses
from tests.serve.gateway.door import Door
from tests.serve.model_proxy.conftest import cost, model_spans
from tests.serve.model_proxy.provider import IN, OUT, WORDS, Provider, response_events

WIRE = OpenAiResponses()
TEXT = "".join(WORDS)
COST = IN * 2 + OUT * 10
TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}


def connected(door: Door) -> OpenAI:
    """Return a stock client that asks once."""
    return OpenAI(base_url=f"{door.url}/openai/v1", api_key=door.token(), max_retries=0, timeout=30)


def test_a_response_is_handed_on_and_recorded(door: Door, provider: Provider) -> None:
    """With its price; the provider is told to keep nothing, and not who asks."""
    with connected(door) as client:
        found = client.responses.create(
            model="default", input="hello", instructions="Be short.", tools=[TOOL], user="me"
        )

    assert TEXT == found.output_text
    [asked] = provider.requests
    assert ("tiny", False, "Be short.") == (asked["model"], asked["store"], asked["instructions"])
    assert "user" not in asked
    (span,) = model_spans(door)
    assert SpanStatus.OK is span.status
    assert COST == cost(door)


def test_a_stream_ends_once_it_is_recorded(door: Door) -> None:
    """Event by event as the stock client reads them, the last one with the whole response."""
    with connected(door) as client:
        events = list(client.responses.create(model="default", input="hello", stream=True))
        recorded = cost(door)

    kinds = [event.type for event in events]
    assert ("response.created", "response.completed") == (kinds[0], kinds[-1])
    assert TEXT == "".join(
        event.delta for event in events if event.type == "response.output_text.delta"
    )
    assert COST == recorded


def test_a_stream_that_breaks_off_says_so(door: Door) -> None:
    """And is recorded with tokens that are estimated."""
    with connected(door) as client:
        *_, last = client.responses.create(model="default", input="cut", stream=True)

    assert "error" == last.type
    assert "broke off" in last.message
    (span,) = model_spans(door)
    assert SpanStatus.ERROR is span.status
    assert 0 < cost(door) < COST


def test_a_refusal_of_our_key_is_not_the_agents(door: Door) -> None:
    """A wrong key is ours, and so is not told as the agent's; nor are the provider's words."""
    with connected(door) as client, pytest.raises(InternalServerError) as told:
        client.responses.create(model="default", input="keys")

    assert "no such key" not in str(told.value)


@pytest.mark.parametrize(
    "more",
    [
        {"store": True},
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]},
        {"include": ["file_search_call.results"]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "mcp_approval_response", "approve": True}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "https://x/y.png"}],
                }
            ]
        },
        {"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]},
        {"prompt": {"id": "pmpt_1"}},
    ],
    ids=lambda more: json.dumps(more)[:60],
)
def test_what_the_provider_would_keep_fetch_or_do_is_refused(more: dict[str, Any]) -> None:
    """It would be a second road, with our credentials."""
    with pytest.raises(InputError):
        WIRE.checked({"model": "default", "input": "hello", **more})


def test_a_refused_request_is_told_in_the_apis_own_form(door: Door, provider: Provider) -> None:
    """The stock client knows it for a bad request, and nothing was asked."""
    with connected(door) as client, pytest.raises(BadRequestError, match="previous_response_id"):
        client.responses.create(model="default", input="hello", previous_response_id="resp_0")

    assert [] == provider.requests


def test_members_that_are_null_ask_for_nothing() -> None:
    """Frameworks send all that they know of."""
    body = {"model": "default", "input": "hello", "previous_response_id": None, "store": None}

    assert {"model": "default", "input": "hello"} == WIRE.checked({**body})


def test_what_came_of_a_stream_that_broke_off_is_kept() -> None:
    """Texts and arguments, each where it was."""
    reading = WIRE.reading({"stream": True})
    for value in response_events()[:-1]:
        reading.take(ServerSentEvent(data=json.dumps(value)))

    assert [
        {"type": "output_text", "text": TEXT},
        {"type": "function_call_arguments", "text": '{"n":7}'},
    ] == reading.reply()["output"]
    assert (None, False) == (reading.told.output_tokens, reading.told.is_whole)
    assert len(TEXT) + 7 == reading.told.characters


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "too many"},
        {"type": "response.failed", "response": {"error": {"message": "too many"}}},
    ],
)
def test_an_error_in_a_stream_is_a_problem(event: dict[str, Any]) -> None:
    """It is not handed on as it is, but told as ours."""
    reading = WIRE.reading({"stream": True})
    part = reading.take(ServerSentEvent(data=json.dumps(event)))

    assert (None, "too many", False) == (part, reading.told.problem, reading.told.is_whole)


def test_a_response_that_was_cut_short_is_a_whole_one() -> None:
    """It reached its bound, and is paid for."""
    reading = WIRE.reading({"stream": True})
    last = {"type": "response.incomplete", "response": {"usage": {"output_tokens": 5}}}
    part = reading.take(ServerSentEvent(data=json.dumps(last)))

    assert (None, True, 5) == (part, reading.told.is_whole, reading.told.output_tokens)
    assert b"event: response.incomplete" in reading.end()
