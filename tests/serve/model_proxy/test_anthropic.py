"""Anthropic's wire: what a stream puts together, and which headers go up."""

from __future__ import annotations

import json

import pytest
from httpx2 import ServerSentEvent

from interlock.domain.errors import InputError
from interlock.serve.model_proxy.anthropic import AnthropicMessages
from tests.serve.model_proxy.provider import IN, OUT, WORDS, anthropic_events

WIRE = AnthropicMessages()


def test_a_stream_is_put_together_as_it_would_have_come_whole() -> None:
    """Texts, calls with their arguments, the reason of the end, and usage."""
    reading = WIRE.reading({"stream": True})
    for value in anthropic_events():
        reading.take(ServerSentEvent(data=json.dumps(value)))

    reply = reading.reply()
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"n": 7}}
    assert [{"type": "text", "text": "".join(WORDS)}, call] == reply["content"]
    assert "tool_use" == reply["stop_reason"]
    assert (IN, OUT, True) == (
        reading.told.input_tokens,
        reading.told.output_tokens,
        reading.told.is_whole,
    )


def test_only_known_headers_go_up() -> None:
    """A beta may change what the provider does, so an unknown one is refused."""
    known = "interleaved-thinking-2025-05-14"

    assert {"anthropic-version": "2023-06-01", "anthropic-beta": known} == WIRE.headers(
        {"anthropic-beta": known, "x-other": "1"}
    )
    with pytest.raises(InputError, match="`code-execution-2025-08-25` is not passed on"):
        WIRE.headers({"anthropic-beta": f"{known}, code-execution-2025-08-25"})
    with pytest.raises(InputError, match="`anthropic-version` is"):
        WIRE.headers({"anthropic-version": "2030-01-01"})
