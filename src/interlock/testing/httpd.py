"""What the servers of the test kit share: a JSON handler, and serving on loopback until told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import NoReturn

from interlock.domain.canonical import Json


class JsonHandler(BaseHTTPRequestHandler):
    """Reads and answers JSON over persistent connections, and writes no access log."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # of an idle connection, or of a client that stops in the middle
    disable_nagle_algorithm = True  # head and body are two writes

    def body(self) -> bytes:
        """Read the whole body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send_json(self, status: int, value: Json, **headers: str) -> None:
        """Answer with a value; `Retry_After="1"` becomes the header `Retry-After: 1`."""
        self.send_bytes(status, json.dumps(value, ensure_ascii=False).encode(), **headers)

    def send_bytes(self, status: int, body: bytes, **headers: str) -> None:
        """Answer with a body that claims to be JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Write nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind without asking the name service for our own name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def handle_error(self, *_args: object) -> None:
        """Report bugs, and say nothing of clients that were killed: tests do that."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"request failed: {error!r}", file=sys.stderr)  # noqa: T201 - a server's log


def serve(handler: type[JsonHandler], *, port: int, port_file: Path | None) -> None:
    """Serve on 127.0.0.1 until SIGTERM; port 0 takes a free one.

    The port file receives the port, all of it or nothing, once requests are answered.
    """
    signal.signal(signal.SIGTERM, _leave)
    with _Server(("127.0.0.1", port), handler) as server:
        if port_file:
            unfinished = port_file.with_name(f"{port_file.name}.{os.getpid()}")
            unfinished.write_text(f"{server.server_port}\n", encoding="utf-8")
            unfinished.replace(port_file)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.05)


def _leave(*_args: object) -> NoReturn:
    sys.exit(0)
