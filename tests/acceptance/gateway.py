"""A gateway in front of an HTTP server that does to requests and answers what a test says."""

from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BAD_GATEWAY = 502
_OURS = {"accept-encoding", "host"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """A request and, once it is there, the server's answer."""

    method: str
    path: str
    status: int = 0
    body: bytes = b""

    def answer(self, status: int, body: bytes) -> bytes:
        """Render an answer."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


Spoil = Callable[[Passing], bytes]


def leave(passing: Passing) -> bytes:
    """Give the answer as it is."""
    return passing.answer(passing.status, passing.body)


class Gateway:
    """Passes requests on; `before` sees each first, `spoil` makes the bytes that answer it.

    `passed` receives each request with the server's own answer, 502 if the server is away. Where
    answers name the server's address they name the gateway's instead. `upstream` may be moved.
    """

    def __init__(self, upstream: str, listener: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{listener.server_port}"
        self.before: Callable[[Passing], None] = lambda _passing: None
        self.spoil: Spoil = leave
        self.passed: queue.SimpleQueue[Passing] = queue.SimpleQueue()
        self.upstream = upstream

    def handle(self, request: Passing, headers: dict[str, str], body: bytes) -> bytes:
        """Pass one request on and return what its sender gets."""
        self.before(request)
        status, answer = self._forward(request, headers, body)
        answer = answer.replace(self.upstream.encode(), self.url.encode())
        passing = Passing(method=request.method, path=request.path, status=status, body=answer)
        spoilt = self.spoil(passing)
        self.passed.put(passing)
        return spoilt

    def _forward(self, request: Passing, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        server = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=20)
        with closing(server):
            try:
                server.request(request.method, request.path, body=body or None, headers=headers)
                reply = server.getresponse()
                return reply.status, reply.read()
            except OSError:
                return BAD_GATEWAY, b"{}"


@contextmanager
def before(upstream: str) -> Iterator[Gateway]:
    """Run a gateway in front of a server in threads of this process."""

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OURS}
            request = Passing(method=self.command, path=self.path)
            self.wfile.write(gateway.handle(request, headers, body))
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815  # the library's names

        def log_message(self, *_args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        gateway = Gateway(upstream, listener)
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield gateway
        finally:
            listener.shutdown()
            thread.join()
