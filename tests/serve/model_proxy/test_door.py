"""The model proxy to the stock client of OpenAI, and to Anthropic's wire: one road, every cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from openai import (
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
)

from interlock.domain.trace import SpanStatus
from interlock.serve.model_proxy import door as proxy
from tests.serve.gateway.door import LIMIT_S, Door
from tests.serve.model_proxy.conftest import BUDGET, cost, model_spans
from tests.serve.model_proxy.provider import IN, OUT, WORDS, Provider

COST = IN * 2 + OUT * 10
TEXT = "".join(WORDS)


Connect = Callable[..., OpenAI]


@pytest.fixture
def client() -> Iterator[Connect]:
    """Opens stock clients that ask once."""
    with ExitStack() as opened:

        def connect(door: Door, token: str | None = None, *, max_retries: int = 0) -> OpenAI:
            return opened.enter_context(
                OpenAI(
                    base_url=f"{door.url}/openai/v1",
                    api_key=token or door.token(),
                    max_retries=max_retries,
                    timeout=30,
                )
            )

        yield connect


def patient(door: Door) -> AsyncOpenAI:
    """Return a stock client for requests at once."""
    return AsyncOpenAI(base_url=f"{door.url}/openai/v1", api_key=door.token(), max_retries=0)


def says(what: str) -> list[Any]:
    """Return messages of which the last one tells the provider what to do."""
    return [{"role": "system", "content": "Be short."}, {"role": "user", "content": what}]


def claude(door: Door, what: str = "hello", *, token: str = "", **more: object) -> httpx2.Response:
    """Send a request as Anthropic's client does."""
    body = {
        "model": "claude",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": what}],
    }
    return httpx2.post(
        f"{door.url}/anthropic/v1/messages",
        json=body | more,
        headers={"x-api-key": token or door.token(), "anthropic-version": "2023-06-01"},
        timeout=30,
    )


def refusal(found: APIStatusError) -> tuple[int, object]:
    """Return the status and our code of an error."""
    assert isinstance(found.body, dict)
    return found.status_code, found.body["code"]


def test_an_answer_is_passed_on_priced_and_recorded(
    door: Door, client: Connect, provider: Provider
) -> None:
    """The model is named by the settings to the agent, and by its server to the server."""
    answer = client(door).chat.completions.create(
        model="default", messages=says("hello"), user="me"
    )

    assert TEXT == answer.choices[0].message.content
    (span,) = model_spans(door)
    assert ("helper", COST, SpanStatus.OK) == (span.parent_key, span.cost_micro_usd, span.status)
    assert COST == cost(door)
    assert ("tiny", None) == (provider.requests[0]["model"], provider.requests[0].get("user"))


def test_nothing_of_the_caller_goes_up(door: Door, client: Connect, provider: Provider) -> None:
    """Neither its token nor a header that its client adds."""
    client(door).chat.completions.create(
        model="default", messages=says("hello"), extra_headers={"X-Whose": "mine"}
    )

    (headers,) = provider.headers
    assert {"accept", "accept-encoding", "connection", "content-length"} <= set(headers)
    assert not {"authorization", "x-api-key", "x-whose", "x-stainless-lang"} & set(headers)


def test_a_stream_is_handed_on_and_its_usage_recorded(
    door: Door, client: Connect, provider: Provider
) -> None:
    """Usage is always asked for, and told only to those who have asked."""
    openai = client(door)
    silent = list(
        openai.chat.completions.create(model="default", messages=says("hello"), stream=True)
    )
    told = list(
        openai.chat.completions.create(
            model="default",
            messages=says("hello"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = [chunk.choices[0].delta.content or "" for chunk in silent]
    assert (TEXT, None) == ("".join(text), silent[-1].usage)
    assert told[-1].usage is not None
    assert IN == told[-1].usage.prompt_tokens
    assert 2 * COST == cost(door)
    assert {"include_usage": True} == provider.requests[0]["stream_options"]


def test_models_are_those_of_the_seat(door: Door, client: Connect) -> None:
    """One that exists but was not granted answers as one that does not."""
    openai = client(door)
    listed = [model.id for model in openai.models.list()]
    with pytest.raises(NotFoundError) as hidden:
        openai.chat.completions.create(model="other", messages=says("hello"))
    with pytest.raises(NotFoundError) as unknown:
        openai.chat.completions.create(model="no-such", messages=says("hello"))

    assert ["default", "unpriced"] == listed
    assert (404, "model_not_found") == refusal(hidden.value)
    assert hidden.value.message.replace("other", "no-such") == unknown.value.message


def test_a_token_that_leads_nowhere_is_refused(door: Door, client: Connect) -> None:
    """In the shape of the API, so that its clients know what it is."""
    with pytest.raises(AuthenticationError) as found:
        client(door, "ilt_nobody").chat.completions.create(model="default", messages=says("hello"))

    assert (401, "unauthenticated") == refusal(found.value)
    assert 401 == claude(door, token="ilt_nobody").status_code


def test_a_model_without_a_price_is_refused(
    door: Door, client: Connect, provider: Provider
) -> None:
    """The road says no as it does to agents of ours, and nothing is sent."""
    with pytest.raises(PermissionDeniedError) as found:
        client(door).chat.completions.create(model="unpriced", messages=says("hello"))

    assert (403, "model.denied") == refusal(found.value)
    assert [] == provider.requests


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {}},
        {"store": True},
        {"n": 9},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://e.org/?q=1"}}],
                }
            ]
        },
    ],
)
def test_what_would_act_at_the_provider_is_not_passed_on(
    door: Door, provider: Provider, more: dict[str, Any]
) -> None:
    """A tool of the provider, or an address it fetches, would be a second way out."""
    body = {"model": "default", "messages": says("hello")} | more
    answer = httpx2.post(
        f"{door.url}/openai/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {door.token()}"},
    )

    assert (400, "input.invalid") == (answer.status_code, answer.json()["error"]["code"])
    assert [] == provider.requests


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("limit", 429, "slow down"),
        ("refuse", 400, "too long"),
        ("fail", 500, "failed (500)"),
        ("keys", 502, "refuses us (401)"),
    ],
)
def test_a_refusal_of_the_provider_is_told_and_costs_nothing(
    door: Door, client: Connect, what: str, status: int, words: str
) -> None:
    """With its status if an agent can do something about it, never with what is not for it."""
    with pytest.raises(APIStatusError) as found:
        client(door).chat.completions.create(model="default", messages=says(what))

    assert (status, "model.failed") == refusal(found.value)
    assert words in found.value.message
    assert "secret" not in found.value.message
    assert ("7" if what == "limit" else None) == found.value.response.headers.get("retry-after")
    assert (0, "model.failed") == (cost(door), model_spans(door)[0].error_code)


def test_a_stream_that_breaks_off_is_recorded_as_estimated(door: Door, client: Connect) -> None:
    """The agent hears an error instead of an end; what came is paid for."""
    with pytest.raises(Exception, match="broke off"):
        list(
            client(door).chat.completions.create(model="default", messages=says("cut"), stream=True)
        )

    (span,) = model_spans(door)
    assert (SpanStatus.ERROR, "model.failed") == (span.status, span.error_code)
    assert span.attributes["interlock.cost.estimated"] is True
    assert 0 < cost(door) < COST


async def test_an_agent_that_leaves_stops_the_provider(door: Door, provider: Provider) -> None:
    """Streamed or not, the request to the provider is closed."""
    async with patient(door) as openai:
        for is_streamed in (True, False):
            provider.began.clear()
            provider.left.clear()
            asking = asyncio.ensure_future(_read(openai, is_streamed=is_streamed))
            await asyncio.to_thread(provider.began.wait, LIMIT_S)
            asking.cancel()

            assert await asyncio.to_thread(provider.left.wait, LIMIT_S)


async def _read(openai: AsyncOpenAI, *, is_streamed: bool) -> None:
    found = await openai.chat.completions.create(
        model="default", messages=says("hang"), stream=is_streamed
    )
    async for _ in found:  # type: ignore[union-attr]
        pass


def test_a_revoked_key_ends_a_stream(
    door: Door, client: Connect, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the session goes on is asked while the answer comes."""
    monkeypatch.setattr(proxy, "LOOK_EVERY_S", 0.1)
    key = door.key()
    stream = client(door, door.token(key)).chat.completions.create(
        model="default", messages=says("hang"), stream=True
    )
    assert provider.began.wait(LIMIT_S)
    door.revoke(key)
    with pytest.raises(Exception, match="the session has ended"):
        list(stream)

    assert provider.left.wait(LIMIT_S)
    assert "model.failed" == model_spans(door)[0].error_code


def test_a_spent_budget_is_told_once(door: Door, provider: Provider, client: Connect) -> None:
    """With a status after which stock clients do not try again."""
    openai = client(door, max_retries=2)
    for _ in range(BUDGET):
        openai.chat.completions.create(model="default", messages=says("hello"))
    with pytest.raises(APIStatusError) as found:
        openai.chat.completions.create(model="default", messages=says("hello"))

    assert (402, "budget.spent") == refusal(found.value)
    assert BUDGET == len(provider.requests)


def test_anthropics_wire_is_passed_on_priced_and_recorded(door: Door, provider: Provider) -> None:
    """What was cached counts as input."""
    answer = claude(door, metadata={"user_id": "me"})

    assert (200, TEXT) == (answer.status_code, answer.json()["content"][0]["text"])
    assert COST == cost(door)
    assert ("tiny", None) == (provider.requests[0]["model"], provider.requests[0].get("metadata"))
    assert "2023-06-01" == provider.headers[0]["anthropic-version"]
    assert "x-api-key" not in provider.headers[0]


def count(door: Door, what: str = "hello", *, token: str = "", **more: object) -> httpx2.Response:
    """Ask for the size of a message as Anthropic's client does."""
    body = {"model": "claude", "messages": [{"role": "user", "content": what}]}
    return httpx2.post(
        f"{door.url}/anthropic/v1/messages/count_tokens",
        json=body | more,
        headers={"x-api-key": token or door.token(), "anthropic-version": "2023-06-01"},
        timeout=30,
    )


def test_the_size_of_a_message_is_counted_for_nothing(door: Door, provider: Provider) -> None:
    """Its content leaves, so it is decided and recorded as a request; its tokens are not used."""
    token = door.token()
    answer = count(door, system="Be short.", token=token)
    broken = count(door, "fail", token=token)

    assert (200, {"input_tokens": IN}) == (answer.status_code, answer.json())
    assert 500 == broken.status_code
    assert [SpanStatus.OK, SpanStatus.ERROR] == [span.status for span in model_spans(door)]
    assert 0 == cost(door)
    assert ("tiny", "Be short.") == (provider.requests[0]["model"], provider.requests[0]["system"])


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"max_tokens": 1},
        {"stream": True},
        {"mcp_servers": []},
    ],
)
def test_what_is_no_part_of_a_count_is_not_passed_on(
    door: Door, provider: Provider, more: dict[str, Any]
) -> None:
    """As of a message, and what is about an answer, of which there is none."""
    assert 400 == count(door, **more).status_code
    assert [] == provider.requests


def test_anthropics_stream_is_handed_on_and_its_usage_recorded(door: Door) -> None:
    """Event by event; the last one comes once the answer is recorded."""
    answer = claude(door, stream=True)

    events = [line for line in answer.text.splitlines() if line.startswith("event: ")]
    assert ("event: message_start", "event: message_stop") == (events[0], events[-1])
    assert 13 == len(events)
    assert COST == cost(door)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"mcp_servers": [{"type": "url", "url": "https://e.org", "name": "x"}]},
        {"container": "c"},
        {"max_tokens": None},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "content": [
                                {"type": "image", "source": {"type": "url", "url": "https://e.org"}}
                            ],
                        }
                    ],
                }
            ]
        },
    ],
)
def test_what_would_act_at_anthropic_is_not_passed_on(
    door: Door, provider: Provider, more: dict[str, Any]
) -> None:
    """The same for both: what acts goes through the gateway."""
    answer = claude(door, **more)

    assert (400, "invalid_request_error") == (
        answer.status_code,
        answer.json()["error"]["type"],
    )
    assert [] == provider.requests


def test_anthropics_stream_that_breaks_off_says_so(door: Door) -> None:
    """What was told of the input is recorded, the rest estimated."""
    answer = claude(door, "cut", stream=True)

    assert "event: error" in answer.text
    assert "event: message_stop" not in answer.text
    (span,) = model_spans(door)
    assert (True, IN) == (
        span.attributes["interlock.cost.estimated"],
        span.attributes["gen_ai.usage.input_tokens"],
    )
