"""OpenAI's wire: what a stream puts together, and bounds that a request names."""

from __future__ import annotations

import json

import pytest
from httpx2 import ServerSentEvent

from interlock.domain.errors import InputError
from interlock.serve.model_proxy.openai import OpenAiChat
from tests.serve.model_proxy.provider import IN, OUT, WORDS, openai_events

WIRE = OpenAiChat()


def test_a_stream_is_put_together_as_it_would_have_come_whole() -> None:
    """Text, calls with their arguments, the reason of the end, and usage."""
    reading = WIRE.reading({"stream": True})
    for value in openai_events():
        reading.take(ServerSentEvent(data=json.dumps(value)))
    reading.take(ServerSentEvent(data="[DONE]"))

    reply = reading.reply()
    call = {"name": "look", "arguments": '{"n":7}'}
    message = {
        "role": "assistant",
        "content": "".join(WORDS),
        "tool_calls": [{"index": 0, "type": "function", "function": call, "id": "call_1"}],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    assert [choice] == reply["choices"]
    assert (IN, OUT, True) == (
        reading.told.input_tokens,
        reading.told.output_tokens,
        reading.told.is_whole,
    )


def test_an_error_in_a_stream_is_a_problem() -> None:
    """It is not handed on as it is, but told as ours."""
    reading = WIRE.reading({"stream": True})
    part = reading.take(ServerSentEvent(data='{"error": {"message": "too many"}}'))

    assert (None, "too many") == (part, reading.told.problem)


def test_a_bound_counts_for_every_choice() -> None:
    """The larger one, if both are named; none if none is."""
    body = {"max_tokens": 10, "max_completion_tokens": 20, "n": 3}

    assert [60, None] == [WIRE.most_output({**body}), WIRE.most_output({})]
    with pytest.raises(InputError, match="`max_tokens` is a positive"):
        WIRE.most_output({"max_tokens": "10"})
