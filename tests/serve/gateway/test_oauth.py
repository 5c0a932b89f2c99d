"""The exchange of an agent's key for tokens, as OAuth has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from interlock.domain.principal import PrincipalKind, Role
from interlock.serve.auth import mint_key
from interlock.store.keys import AgentPlace
from interlock.testing.recorder_project import session_files
from tests.serve.gateway.door import SEAT
from tests.serve.plane import Plane, body_of

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """An installation with sessions of an outside agent."""
    with Plane(tmp_path) as opened:
        opened.apply(session_files("http://127.0.0.1:9"))
        yield opened


def agent_key(plane: Plane) -> tuple[str, str]:
    """Return id and secret of a key of the agent."""
    return plane.interlock.db.run(
        "test.key",
        lambda tx: mint_key(
            tx,
            name="helper-1",
            kind=PrincipalKind.AGENT,
            roles=frozenset(),
            by="tests",
            place=AgentPlace(seat=SEAT, environment="dev"),
        ),
    )


async def ask(
    plane: Plane, headers: dict[str, str] | None = None, /, **form: str
) -> httpx2.Response:
    """Send a form to the token endpoint."""
    given = {**FORM, **(headers or {})}
    return await plane.send("POST", "/oauth/token", content=urlencode(form).encode(), headers=given)


async def test_a_key_is_exchanged_in_a_form_or_by_basic(plane: Plane) -> None:
    """Both ways of RFC 6749, and the answer may not be kept by anyone in between."""
    key_id, secret = agent_key(plane)
    basic = base64.b64encode(f"{key_id}:{secret}".encode()).decode()
    grant = {"grant_type": "client_credentials"}
    answers = [
        await ask(plane, client_id=key_id, client_secret=secret, **grant),
        await ask(plane, client_secret=secret, **grant),
        await ask(plane, {"Authorization": f"Basic {basic}"}, **grant),
    ]

    for answer in answers:
        body = body_of(answer)
        assert (200, "Bearer", "no-store") == (
            answer.status_code,
            body["token_type"],
            answer.headers["Cache-Control"],
        )
        assert str(body["access_token"]).startswith("ilt_")


async def test_a_refresh_stays_in_the_session(plane: Plane) -> None:
    """The run is the same, and the new token has no other refresh token."""
    _, secret = agent_key(plane)
    first = body_of(await ask(plane, grant_type="client_credentials", client_secret=secret))
    second = body_of(
        await ask(
            plane,
            grant_type="refresh_token",
            client_secret=secret,
            refresh_token=str(first["refresh_token"]),
        )
    )

    assert first["run_id"] == second["run_id"]
    assert first["access_token"] != second["access_token"]
    assert "refresh_token" not in second


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"client_secret": "ilk_made-up"}, (401, "invalid_client")),
        ({"client_id": "another"}, (401, "invalid_client")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        ({"grant_type": "refresh_token", "refresh_token": "ilf_no"}, (400, "invalid_grant")),
        ({"resource": "https://elsewhere.example/mcp"}, (400, "invalid_target")),
    ],
)
async def test_what_is_not_right_is_refused(
    plane: Plane, form: dict[str, str], expected: tuple[int, str]
) -> None:
    """With the error that OAuth has for it."""
    _, secret = agent_key(plane)
    given = {"grant_type": "client_credentials", "client_secret": secret} | form
    answer = await ask(plane, **given)

    assert expected == (answer.status_code, body_of(answer)["error"])


async def test_a_key_of_a_person_opens_no_session(plane: Plane) -> None:
    """Whoever may do a lot elsewhere is no agent here."""
    token = plane.key(*Role)
    answer = await ask(plane, grant_type="client_credentials", client_secret=token)

    assert (400, "unauthorized_client") == (answer.status_code, body_of(answer)["error"])


async def test_a_key_of_an_agent_calls_no_route(plane: Plane) -> None:
    """It has no role: all that it can do is to open sessions."""
    _, secret = agent_key(plane)
    answer = await plane.send("GET", "/api/v1/runs", token=secret)

    assert 403 == answer.status_code


async def test_clients_find_the_token_endpoint(plane: Plane) -> None:
    """From the gateway's refusal, by the metadata of the resource, to those of the server."""
    refused = await plane.send("POST", "/mcp", content=b"{}")
    pointed = refused.headers["WWW-Authenticate"]
    resource = body_of(await plane.send("GET", "/.well-known/oauth-protected-resource/mcp"))
    server = body_of(await plane.send("GET", "/.well-known/oauth-authorization-server"))

    assert 401 == refused.status_code
    assert "/.well-known/oauth-protected-resource/mcp" in pointed
    assert [server["issuer"]] == resource["authorization_servers"]
    assert str(server["token_endpoint"]).endswith("/oauth/token")


async def revoke(plane: Plane, **form: str) -> httpx2.Response:
    """Send a form to the endpoint that takes tokens back."""
    given = urlencode(form).encode()
    return await plane.send("POST", "/oauth/revoke", content=given, headers=FORM)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_an_agent_ends_its_session(plane: Plane, kind: str) -> None:
    """By either token: none of the session works any more, and that is no error twice."""
    key_id, secret = agent_key(plane)
    opened = body_of(await ask(plane, grant_type="client_credentials", client_secret=secret))
    form = {"client_id": key_id, "client_secret": secret, "token": str(opened[kind])}
    answers = [(await revoke(plane, **form)).status_code for _ in range(2)]
    again = await ask(
        plane,
        grant_type="refresh_token",
        client_secret=secret,
        refresh_token=str(opened["refresh_token"]),
    )

    assert [200, 200] == answers
    assert plane.interlock.session_of(str(opened["access_token"])) is None
    assert 400 == again.status_code


async def test_nobody_ends_the_session_of_another_key(plane: Plane) -> None:
    """What is not one's own is answered like what does not exist; without a key nothing is."""
    _, secret = agent_key(plane)
    opened = body_of(await ask(plane, grant_type="client_credentials", client_secret=secret))
    token = str(opened["access_token"])
    _, stranger = agent_key(plane)
    answers = [
        await revoke(plane, client_secret=stranger, token=token),
        await revoke(plane, client_secret=stranger, token="ilt_made-up"),
        await revoke(plane, client_secret="ilk_made-up", token=token),
    ]

    assert [200, 200, 401] == [answer.status_code for answer in answers]
    assert plane.interlock.session_of(token) is not None
