from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest

from interlock.domain.principal import Role
from interlock.serve.process import Server
from tests.serve.plane import API, Plane

STOP_S = 10


@pytest.fixture
def address(plane: Plane) -> Iterator[tuple[str, Server, threading.Thread]]:
    """A server of the installation on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(plane.app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server, thread
        server.end()
        thread.join(STOP_S)
        assert not thread.is_alive()


def test_forwarded_headers_change_nothing(
    plane: Plane, address: tuple[str, Server, threading.Thread]
) -> None:
    """Also from this machine, which many servers trust."""
    url, _, _ = address
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    headers = {"Authorization": f"Bearer {plane.key(Role.VIEWER)}", **forwarded}

    answer = httpx2.get(f"{url}{API}/runs", headers=headers, trust_env=False)

    assert 200 == answer.status_code
    assert "server" not in answer.headers


def test_an_open_page_does_not_hold_up_the_end(
    plane: Plane, address: tuple[str, Server, threading.Thread]
) -> None:
    """A stream ends when the server is told to stop."""
    url, server, thread = address
    headers = {"Authorization": f"Bearer {plane.key(Role.VIEWER, Role.APPROVER)}"}
    with (
        httpx2.Client(headers=headers, trust_env=False, timeout=STOP_S) as client,
        client.stream("GET", f"{url}/approvals/live") as stream,
    ):
        assert 200 == stream.status_code
        server.end()
        list(stream.iter_bytes())
    thread.join(STOP_S)

    assert not thread.is_alive()
