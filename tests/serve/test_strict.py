"""Strict JSON at the door: what two readers could read in two ways is refused, with the reason."""

from __future__ import annotations

import asyncio
import threading

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.principal import Role
from interlock.serve import strict
from interlock.serve.strict import TEXT_MOST
from tests.serve.plane import API, Plane, body_of, error_of

LONG = "x" * (TEXT_MOST + 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"workflow": "a", "workflow": "b"}', "the keys `workflow` and `workflow` are the same"),
        (b'{"workflow": "a", "Workflow": "b"}', "the keys `workflow` and `Workflow` are the same"),
        (b'{"workflow": "a", "input": {"n": NaN}}', "`NaN` is not a JSON number"),
        (b'{"workflow": "a", "input": {"n": -Infinity}}', "`-Infinity` is not a JSON number"),
        (b'{"workflow": "a", "input": {"n": 1e999}}', "the number `1e999` is beyond"),
        (b'{"workflow": "a", "input": {"n": 9007199254740993}}', "is beyond 2^53"),
        (b'{"workflow": "a"} {}', "not JSON at line 1, column 19: extra data"),
        (b'{"workflow": "\xff"}', "the JSON text is not UTF-8 at byte 14"),
        (b'{"workflow": "\\ud800"}', "a string holds half of a surrogate pair"),
        (b'{"input": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper than 32 levels"),
        (b'{"workflow": ', "not JSON at line 1"),
    ],
)
async def test_ambiguous_json_is_refused(plane: Plane, content: bytes, message: str) -> None:
    """Each is 400 with what and where."""
    token = plane.key(Role.OPERATOR)
    answer = await plane.send("POST", f"{API}/runs", token=token, content=content)

    assert (400, "json.invalid") == error_of(answer)[:2]
    assert message in error_of(answer)[2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"workflow": "a", "imput": {}}', "body.imput: extra inputs are not permitted"),
        (b'{"workflow": 7}', "body.workflow: input should be a valid string"),
        (b"{}", "body.workflow: field required"),
        (b"[]", "body: input should be a valid dictionary"),
        (b'{"workflow": "a", "environment": "moon"}', "body.environment: input should be 'dev'"),
    ],
)
async def test_a_body_of_another_shape_is_refused(
    plane: Plane, content: bytes, problem: str
) -> None:
    """The answer names the member."""
    token = plane.key(Role.OPERATOR)
    answer = await plane.send("POST", f"{API}/runs", token=token, content=content)

    status, code, message = error_of(answer)
    assert (422, "input.invalid") == (status, code)
    assert problem in message


async def test_a_body_is_json_or_nothing(plane: Plane) -> None:
    """What a form of another site can send without being asked first is no body."""
    token = plane.key(Role.OPERATOR)
    headers = {"Content-Type": "text/plain"}
    content = b'{"workflow": "a"}'
    answer = await plane.send("POST", f"{API}/runs", token=token, content=content, headers=headers)

    assert 422 == answer.status_code


async def test_numbers_of_queries_are_bounded(plane: Plane) -> None:
    """A list is asked for in pages."""
    token = plane.key(Role.VIEWER)
    answer = await plane.send("GET", f"{API}/runs?limit=100000", token=token)

    assert "query.limit: input should be less than or equal to 500" == error_of(answer)[2]
    error = body_of(answer)["error"]
    assert isinstance(error, dict)
    assert [error["message"]] == error["problems"]


@pytest.mark.parametrize("noun", ["runs", "effects"])
@pytest.mark.parametrize("moment", ["-1", "9" * 30])
async def test_moments_of_queries_are_bounded(plane: Plane, noun: str, moment: str) -> None:
    """No database is asked for a number that it cannot hold."""
    token = plane.key(Role.VIEWER)
    answer = await plane.send("GET", f"{API}/{noun}?before_us={moment}", token=token)

    assert (422, True) == (answer.status_code, "query.before_us" in error_of(answer)[2])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("approvals/x/answer", {"answer": "reject", "digest": "", "reason": LONG}),
        ("effects/x/settle", {"answer": "done", "reason": LONG}),
        ("effects/x/settle", {"answer": "done", "reason": "I see it", "external_id": LONG}),
    ],
)
async def test_words_of_people_are_bounded(plane: Plane, path: str, body: JsonObject) -> None:
    """What is kept for ever, and told to agents, is short."""
    token = plane.key(Role.APPROVER, Role.OPERATOR)
    answer = await plane.send("POST", f"{API}/{path}", token=token, body=body)

    assert (422, True) == (
        answer.status_code,
        f"at most {TEXT_MOST} characters" in error_of(answer)[2],
    )


@pytest.mark.parametrize("content", [b"{", b'{"workflow": "a"}'])
async def test_nothing_is_read_of_a_stranger(plane: Plane, content: bytes) -> None:
    """Whatever a body holds, who sends it without a key is told that first."""
    answer = await plane.send("POST", f"{API}/runs", content=content)

    assert (401, "unauthenticated") == error_of(answer)[:2]


async def test_others_are_answered_while_a_body_is_parsed(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large body holds up its sender only."""
    is_parsing, may_end = threading.Event(), threading.Event()

    def slow(_: bytes) -> Json:
        is_parsing.set()
        assert may_end.wait(10)
        return {}

    monkeypatch.setattr(strict, "parse", slow)
    token = plane.key(Role.OPERATOR)
    sending = asyncio.create_task(plane.send("POST", f"{API}/runs", token=token, content=b"{}"))
    assert await asyncio.to_thread(is_parsing.wait, 10)
    other = await plane.send("GET", "/healthz")
    is_waiting = not sending.done()
    may_end.set()

    assert (200, True) == (other.status_code, is_waiting)
    assert 422 == (await sending).status_code
