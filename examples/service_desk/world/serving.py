"""Serves a tracker's pages and REST interface on loopback, and starts the sender of webhooks."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# A script's neighbours are found at run time only.
from delivery import Sender  # type: ignore[import-not-found]
from roundup.cgi.wsgi_handler import RequestDispatcher


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind without asking the name service for our own name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 30  # for a client that stops in the middle of a request
    disable_nagle_algorithm = True  # header and body are two writes

    def get_environ(self) -> WSGIEnvironment:
        """Invent no `text/plain` for a request without a content type: Roundup refuses it."""
        environ = super().get_environ()
        if self.headers.get("content-type") is None:
            environ.pop("CONTENT_TYPE")
        return environ

    def log_message(self, *_args: object) -> None:
        """Write no access log."""


class _Application:
    """Roundup behind one lock for requests that write.

    Roundup compares an `If-Match` and stores the change in two transactions; one writer at a time
    makes the comparison hold for simultaneous requests too.
    """

    def __init__(self, home: Path, writing: threading.Lock, wrote: threading.Event) -> None:
        roundup = RequestDispatcher(str(home), feature_flags={"cache_tracker": ""})
        self.tracker = roundup.tracker
        self._roundup: WSGIApplication = roundup
        self._writing = writing
        self._wrote = wrote

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in {"GET", "HEAD", "OPTIONS"}:
            return self._roundup(environ, start_response)
        # Read the whole body first: a slow client must not hold the lock.
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["CONTENT_LENGTH"] = str(length)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self._writing:
            body = self._roundup(environ, start_response)
        self._wrote.set()
        return body


def serve(
    home: Path,
    *,
    port: int,
    port_file: Path | None,
    webhook_url: str | None,
    webhook_secret_file: Path | None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; the port file appears once requests are answered."""
    if not (home / "config.ini").is_file():
        raise SystemExit(f"`{home}` holds no tracker: create it with `tracker.py init`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    writing, wrote = threading.Lock(), threading.Event()
    application = _Application(home, writing, wrote)
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.set_app(application)
        address = f"http://127.0.0.1:{server.server_port}/"
        application.tracker.config["TRACKER_WEB"] = address
        application.tracker.open("admin").close()  # the first opening compiles and checks
        if webhook_url and webhook_secret_file:
            secret = webhook_secret_file.read_text(encoding="utf-8").strip()
            sender = Sender(
                application.tracker,
                url=webhook_url,
                secret=secret,
                writing=writing,
                wrote=wrote,
                refused=home / "refused",
            )
            threading.Thread(target=sender.run, daemon=True).start()
        _publish(home / "address", address)
        if port_file:
            _publish(port_file, str(server.server_port))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.05)


def _publish(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)
