"""A small HTTP server whose answers a test chooses; it keeps every request it received."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it arrived; header names in lower case, `x-port` is the port it came from."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Answer:
    """What to answer: `raw` bytes instead of a well-formed answer, or none and a closed socket."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass(kw_only=True)
class Site:
    """The server's port, its answers in order (the last one stays), and what it saw."""

    port: int
    answers: list[Answer]
    seen: list[Seen]

    def then(self, *answers: Answer) -> None:
        """Set the answers to come."""
        self.answers[:] = answers


@contextmanager
def site(*, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve on a loopback port."""
    seen: list[Seen] = []
    answers: list[Answer] = [Answer()]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            headers["x-port"] = str(self.client_address[1])
            seen.append(Seen(method=self.command, path=self.path, headers=headers, body=body))
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer.raw is not None:
                self.wfile.write(answer.raw)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(answer.body)),
                **answer.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  # theirs

        def log_message(self, *_args: object) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args: object) -> None:
            """Keep quiet: clients that hang up are part of the tests."""

    httpd = Listening(("127.0.0.1", 0), Handler)
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Site(port=httpd.server_port, answers=answers, seen=seen)
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
