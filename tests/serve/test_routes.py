"""Every route of the application: who may call it, found by walking the application itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.store import approvals, effects
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import WORKFLOW_OF, files
from tests.road_bench import RoadBench
from tests.serve.plane import API, EVERY_ROLE, Plane, body_of, error_of

OPEN = {
    ("POST", "/webhooks/{source}"),  # proved by its signature
    ("POST", "/oauth/token"),  # proved by the key in it
    ("POST", "/oauth/revoke"),  # as well
    ("POST", "/openai/v1/chat/completions"),  # as the next three, proved by a session's token
    ("POST", "/openai/v1/responses"),
    ("GET", "/openai/v1/models"),
    ("POST", "/anthropic/v1/messages"),
    ("POST", "/anthropic/v1/messages/count_tokens"),
    ("GET", "/oauth/authorize"),  # refuses everybody
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/static/{path:path}"),
    ("HEAD", "/static/{path:path}"),
}
OTHER = TenantId("other")


@dataclass(frozen=True)
class Route:
    """One method of one path, and the roles of which a caller needs one."""

    method: str
    path: str
    roles: frozenset[Role]

    def address(self, **ids: str) -> str:
        """Return the path with ids filled in; unknown things by default."""
        return re.sub(r"\{(\w+)[^}]*\}", lambda found: ids.get(found[1], "unknown"), self.path)


def routes(plane: Plane) -> list[Route]:
    """Return every route of the application."""
    return [
        Route(method, str(context.path), _roles(getattr(context, "dependant", None)))
        for context in iter_route_contexts(plane.app.routes)
        for method in context.methods or ()
    ]


def _roles(dependant: Dependant | None) -> frozenset[Role]:
    if dependant is None:
        return frozenset()
    declared: frozenset[Role] = frozenset(getattr(dependant.call, "roles", ()))
    return declared.union(*(_roles(inner) for inner in dependant.dependencies))


def _rest(plane: Plane) -> list[Route]:
    return [route for route in routes(plane) if route.path.startswith(API)]


def test_every_route_declares_who_may_call_it(plane: Plane) -> None:
    """A route without roles is one of those that are open on purpose."""
    undeclared = {(route.method, route.path) for route in routes(plane) if not route.roles}

    assert OPEN == undeclared


def test_the_walk_finds_the_routes(plane: Plane) -> None:
    """So that the tests of this module do not pass for want of routes."""
    found = {(route.method, route.path) for route in _rest(plane)}

    assert {
        ("POST", f"{API}/runs"),
        ("POST", f"{API}/approvals/{{approval_id}}/answer"),
        ("POST", f"{API}/effects/{{effect_id}}/settle"),
        ("POST", f"{API}/project/apply"),
        ("POST", f"{API}/keys"),
        ("GET", f"{API}/openapi.json"),
    } <= found
    assert 30 < len(found)


async def test_nobody_gets_in_without_a_key(plane: Plane) -> None:
    """Without sign-in, with a made-up key and with another scheme the answer is 401."""
    for route in _rest(plane):
        address = route.address()
        for headers in (
            {},
            {"Authorization": "Bearer ilk_made-up"},
            {"Authorization": "Basic b3BzOm9wcw=="},
            {"Cookie": "__Host-interlock=made-up"},
        ):
            answer = await plane.send(route.method, address, headers=headers)

            assert (401, "unauthenticated") == error_of(answer)[:2], (route, headers)
            assert "Bearer" == answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("role", Role)
async def test_a_role_may_call_what_is_declared_and_nothing_else(plane: Plane, role: Role) -> None:
    """Each route answers 403 exactly to the roles that it does not name."""
    token = plane.key(role)
    for route in _rest(plane):
        answer = await plane.send(route.method, route.address(), token=token)

        is_refused = answer.status_code == 403
        assert is_refused == (role not in route.roles), (route, answer.text)
        assert answer.status_code < 500, (route, answer.text)


async def test_a_key_without_a_role_may_do_nothing(plane: Plane) -> None:
    """Being known is not being allowed."""
    token = plane.key()
    for route in _rest(plane):
        answer = await plane.send(route.method, route.address(), token=token)

        assert 403 == answer.status_code, route


@dataclass(frozen=True)
class Things:
    """The ids of what one tenant has."""

    run_id: str
    effect_id: str
    approval_id: str


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path) as running:
        yield running


@pytest.fixture
def things(recorder: Recorder, sqlite_url: str) -> Things:
    """A run of the default tenant that waits for an approval, in the database of `shared`."""
    with RoadBench(sqlite_url, files(recorder.url, approve=True)) as bench:
        run_id = bench.run(WORKFLOW_OF["keyed"], {"text": "private words"})
        with bench.db.reading() as tx:
            (effect,) = effects.list_for_run(tx, run_id)
            (approval,) = approvals.list_for_effect(tx, effect.effect_id)
        return Things(run_id, effect.effect_id, approval.approval_id)


@pytest.fixture
def shared(tmp_path: Path, things: Things, sqlite_url: str) -> Iterator[Plane]:
    """An installation with the rows of `things`."""
    assert things.run_id
    with Plane(tmp_path, database_url=sqlite_url) as opened:
        yield opened


async def test_another_tenants_things_do_not_exist(shared: Plane, things: Things) -> None:
    """Every route with an id answers 404, as for an id that was never given out."""
    token = shared.key(*EVERY_ROLE, name="eve", groups=["data-owners"], tenant=OTHER)
    ids = {
        "run_id": things.run_id,
        "effect_id": things.effect_id,
        "approval_id": things.approval_id,
        "workflow": WORKFLOW_OF["keyed"],
        "name": "start",
    }
    bodies: dict[str, JsonObject] = {
        "answer": {"answer": "approve", "digest": "sha256:0"},
        "settle": {"answer": "done", "reason": "I say so"},
        "signals": {"topic": "go"},
    }
    asked = [
        route
        for route in _rest(shared)
        if any(part in route.path for part in ("runs/{", "effects/{", "approvals/{", "triggers/{"))
    ]
    assert 12 < len(asked)
    for route in asked:
        sent = bodies.get(route.path.rpartition("/")[2])
        answer = await shared.send(route.method, route.address(**ids), token=token, body=sent)

        assert 404 == answer.status_code, (route, answer.text)
        assert "private" not in answer.text


async def test_lists_hold_only_what_is_the_readers(shared: Plane, things: Things) -> None:
    """No list of another tenant names a run, an effect, an approval, a workflow or a trigger."""
    token = shared.key(*EVERY_ROLE, name="eve", tenant=OTHER)
    own = shared.key(*EVERY_ROLE, name="ann")
    for noun in ("runs", "effects", "approvals", "workflows", "triggers"):
        assert [] == body_of(await shared.send("GET", f"{API}/{noun}", token=token))[noun]
        assert [] != body_of(await shared.send("GET", f"{API}/{noun}", token=own))[noun], noun
    seen = await shared.send("GET", f"{API}/keys", token=token)
    assert "ann" not in seen.text
    assert things.run_id not in (await shared.send("GET", f"{API}/summary", token=token)).text
