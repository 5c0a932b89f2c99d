"""The door of the gateway: who gets in, and what of a request is read at all."""

from __future__ import annotations

import pytest

from tests.serve.gateway.test_oauth import agent_key, ask, plane
from tests.serve.plane import Plane, body_of

__all__ = ["plane"]
MODERN = {"MCP-Protocol-Version": "2026-07-28"}


async def token(plane: Plane) -> str:
    """Return the token of a new session."""
    _, secret = agent_key(plane)
    answer = await ask(plane, grant_type="client_credentials", client_secret=secret)
    return str(body_of(answer)["access_token"])


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_nobody_gets_in_without_a_token(plane: Plane, method: str) -> None:
    """Nor with a key, another scheme, or a refresh token: the answer says where tokens are had."""
    _, secret = agent_key(plane)
    opened = body_of(await ask(plane, grant_type="client_credentials", client_secret=secret))
    for header in (
        None,
        f"Bearer {secret}",
        f"Bearer {opened['refresh_token']}",
        "Bearer ilt_made-up",
        f"Basic {opened['access_token']}",
    ):
        given = {} if header is None else {"Authorization": header}
        answer = await plane.send(method, "/mcp", headers=given)

        assert (401, True) == (answer.status_code, "WWW-Authenticate" in answer.headers)


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"n":NaN}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"n":1e999}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"n":-0}}}',
        b'{"jsonrpc":"2.0","id":1} {}',
        b'{"a":"\xff"}',
        b"[" * 40 + b"]" * 40,
    ],
)
async def test_json_that_two_readers_could_read_differently_is_refused(
    plane: Plane, text: bytes
) -> None:
    """Before the protocol is looked at: what is decided about is what the tool gets."""
    headers = {**MODERN, "Accept": "application/json, text/event-stream"}
    answer = await plane.send(
        "POST", "/mcp", token=await token(plane), content=text, headers=headers
    )

    error = body_of(answer)["error"]
    assert isinstance(error, dict)
    assert (400, -32700) == (answer.status_code, error["code"])


@pytest.mark.parametrize("given", ["", '"id":null,', '"id":1.5,', '"id":true,', '"id":[1],'])
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_a_request_that_cannot_be_answered_is_refused(
    plane: Plane, given: str, version: str
) -> None:
    """Not accepted and forgotten, in both eras: its caller would wait for nothing."""
    text = f'{{"jsonrpc":"2.0",{given}"method":"tools/call","params":{{"name":"x"}}}}'
    headers = {"MCP-Protocol-Version": version, "Accept": "application/json, text/event-stream"}
    answer = await plane.send(
        "POST", "/mcp", token=await token(plane), content=text.encode(), headers=headers
    )

    error = body_of(answer)["error"]
    assert isinstance(error, dict)
    assert (400, -32600) == (answer.status_code, error["code"])


async def test_a_web_page_gets_nothing(plane: Plane) -> None:
    """A foreign `Origin` is refused although the token is right."""
    headers = {**MODERN, "Origin": "https://evil.example"}
    answer = await plane.send(
        "POST", "/mcp", token=await token(plane), content=b"{}", headers=headers
    )

    assert 403 == answer.status_code


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_posts_are_answered(plane: Plane, method: str) -> None:
    """No stream is held open for what is never pushed."""
    answer = await plane.send(method, "/mcp", token=await token(plane))

    assert (405, "POST") == (answer.status_code, answer.headers["Allow"])
