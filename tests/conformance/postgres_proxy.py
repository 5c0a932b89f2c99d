"""A network that eats the answer to one COMMIT: the server did it, the client never hears so."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy import make_url


class CommitEater:
    """Passes bytes between clients and the Postgres of a URL; `url` names it through the proxy.

    `has_eaten` tells that the answer to a COMMIT was lost.
    """

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (target.host or "127.0.0.1", target.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        # Encrypted, the word COMMIT could not be seen.
        through = target.set(host="127.0.0.1", port=port).update_query_dict({"sslmode": "disable"})
        self.url = through.render_as_string(hide_password=False)
        self.has_eaten = False
        self._is_armed = False
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def eat_next_answer(self) -> None:
        """Break the next connection that commits, after the server has answered."""
        self._is_armed = True

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        _break(self._listener)
        for each in self._sockets:
            _break(each)
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            eaten = threading.Event()
            self._start(self._forward, client, server, eaten)
            self._start(self._backward, client, server, eaten)

    def _forward(
        self, client: socket.socket, server: socket.socket, eaten: threading.Event
    ) -> None:
        while data := _receive(client):
            if self._is_armed and b"COMMIT" in data:
                self._is_armed, self.has_eaten = False, True
                eaten.set()
            _send(server, data)
        _break(server)

    def _backward(
        self, client: socket.socket, server: socket.socket, eaten: threading.Event
    ) -> None:
        while (data := _receive(server)) and not eaten.is_set():
            _send(client, data)
        _break(client)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _send(target: socket.socket, data: bytes) -> None:
    # The other thread may have broken the connection a moment ago.
    with suppress(OSError):
        target.sendall(data)


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
