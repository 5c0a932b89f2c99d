"""The guards that every request passes, and errors as people and programs read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from interlock.config import Config
from interlock.domain.errors import InvariantError
from interlock.domain.principal import Role
from interlock.serve.http import MAX_BODY_BYTES
from tests.serve.plane import API, Plane, body_of, error_of


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8425", "127.0.0.1:1", "[::1]:8425", "[::1]", "LOCALHOST"]
)
async def test_known_hosts_are_answered(plane: Plane, host: str) -> None:
    """A name of this machine is one of ours, with any port."""
    answer = await plane.send("GET", "/healthz", headers={"Host": host})

    assert 200 == answer.status_code


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.x:80", ""])
async def test_other_hosts_are_refused(plane: Plane, host: str) -> None:
    """A page of another site that has its name lead here gets nothing (DNS rebinding)."""
    answer = await plane.send("GET", "/healthz", headers={"Host": host})

    assert (421, "http", f"this server is not `{host.rpartition(':')[0] or host}`") == error_of(
        answer
    )


async def test_the_name_of_a_proxy_is_answered(tmp_path: Path) -> None:
    """The host of `public_url` is one of ours, and sign-in links lead there."""
    config = Config(data_dir=tmp_path / "data", public_url="https://interlock.example/")
    with Plane(tmp_path, config=config) as plane:
        answer = await plane.send("GET", "/healthz", headers={"Host": "interlock.example"})
        token = plane.key(Role.VIEWER)
        link = await plane.send("POST", f"{API}/keys/sign-in-link", token=token)

    assert 200 == answer.status_code
    assert str(body_of(link)["url"]).startswith("https://interlock.example/sign-in?link=")


async def test_forwarded_names_count_for_nothing(plane: Plane) -> None:
    """What a client says about its way here changes no answer."""
    spoofed = {"X-Forwarded-Host": "localhost", "Host": "evil.example"}
    answer = await plane.send("GET", "/healthz", headers=spoofed)

    assert 421 == answer.status_code


@pytest.mark.parametrize("path", ["//healthz", "/api//v1/runs", "/api/v1\\runs"])
async def test_an_ambiguous_path_is_refused(plane: Plane, path: str) -> None:
    """No path that two readers could read in two ways gets as far as a route."""
    answer = await plane.send("GET", f"http://localhost{path}")

    assert (400, "http", "the path is ambiguous") == error_of(answer)


@pytest.mark.parametrize("address", ["runs/a%00b", "runs?workflow=a%00b"])
async def test_a_null_character_is_refused(plane: Plane, address: str) -> None:
    """It would not survive the way to a database."""
    answer = await plane.send("GET", f"{API}/{address}", token=plane.key(Role.VIEWER))

    assert (400, "http", "the address holds a null character") == error_of(answer)


async def test_an_unknown_path_is_a_sentence(plane: Plane) -> None:
    """404 and 405 have the body of every error."""
    missing = await plane.send("GET", f"{API}/nothing")
    wrong = await plane.send("DELETE", f"{API}/runs")

    assert (404, "not_found", "there is nothing at `/api/v1/nothing`") == error_of(missing)
    assert (405, "http", "`/api/v1/runs` takes no DELETE") == error_of(wrong)


async def test_the_method_cannot_be_overridden(plane: Plane) -> None:
    """A header does not turn a read into a write."""
    token = plane.key(Role.OPERATOR)
    override = {"X-HTTP-Method-Override": "POST"}
    answer = await plane.send("GET", f"{API}/runs", token=token, headers=override)

    assert [] == body_of(answer)["runs"]


async def test_a_declared_size_beyond_the_limit_is_refused(plane: Plane) -> None:
    """413 before anything is read."""
    token = plane.key(Role.OWNER)
    huge = b" " * (MAX_BODY_BYTES + 1)
    answer = await plane.send("POST", f"{API}/project/plan", token=token, content=huge)

    assert (413, "http", f"the body is larger than {MAX_BODY_BYTES} bytes") == error_of(answer)


async def test_a_size_that_is_not_declared_counts_all_the_same(plane: Plane) -> None:
    """A body in chunks is read no further than the limit."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 4 * MAX_BODY_BYTES:
            sent += 1024 * 1024
            yield b" " * 1024 * 1024

    answer = await _send_chunks(plane, chunks)

    assert (413, "http", f"the body is larger than {MAX_BODY_BYTES} bytes") == error_of(answer)
    assert MAX_BODY_BYTES + 1024 * 1024 >= sent


async def _send_chunks(plane: Plane, chunks: Callable[[], AsyncIterator[bytes]]) -> httpx2.Response:
    headers = {
        "Authorization": f"Bearer {plane.key(Role.OWNER)}",
        "Content-Type": "application/json",
    }
    transport = httpx2.ASGITransport(app=plane.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post(f"{API}/project/plan", content=chunks(), headers=headers)


async def test_a_compressed_body_is_refused(plane: Plane) -> None:
    """A few bytes must not become many."""
    answer = await plane.send("POST", f"{API}/runs", headers={"Content-Encoding": "gzip"})

    assert (415, "http", "compressed requests are not accepted") == error_of(answer)


async def test_answers_are_kept_by_nobody(plane: Plane) -> None:
    """No cache on the way keeps an answer, and no browser guesses what it is."""
    answer = await plane.send("GET", f"{API}/runs", token=plane.key(Role.VIEWER))

    assert "no-store" == answer.headers["Cache-Control"]
    assert "nosniff" == answer.headers["X-Content-Type-Options"]


async def test_a_bug_of_ours_shows_no_traceback(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is one sentence; what it was stands in the log."""
    secret = "a value of a local variable"

    def broken(*_: object, **__: object) -> None:
        raise ValueError(secret)

    monkeypatch.setattr("interlock.store.runs.list_runs", broken)
    answer = await plane.send("GET", f"{API}/runs", token=plane.key(Role.VIEWER))

    message = "something went wrong on our side; the log has the details"
    assert (500, "internal", message) == error_of(answer)
    assert secret not in answer.text
    assert "Traceback" not in answer.text


async def test_an_error_that_is_no_ones_input_is_500(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own error classes without a status of their own are faults of ours."""

    def broken(*_: object, **__: object) -> None:
        raise InvariantError("two rows where one was expected")

    monkeypatch.setattr("interlock.store.runs.list_runs", broken)
    answer = await plane.send("GET", f"{API}/runs", token=plane.key(Role.VIEWER))

    assert 500 == answer.status_code


async def test_health_needs_no_sign_in(plane: Plane) -> None:
    """A load balancer learns that we live, who answers and what is live, and nothing else."""
    alive = {"status": "alive", "instance": plane.interlock.executor_id}
    assert alive == body_of(await plane.send("GET", "/healthz"))
    queues = {"read": 0, "troubled": 0}
    ready = body_of(await plane.send("GET", "/readyz"))

    assert {"status": "ready", "release": 0, "queues": queues} == ready
