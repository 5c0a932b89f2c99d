"""A server that answers as a KV engine of Vault does, version 2, by its API documentation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class VaultServer:
    """What it holds by path, each version with its time; what it heard; how it answers."""

    url: str
    token: str = "t-1"
    now: datetime = BEGAN
    versions: dict[str, list[tuple[object, datetime]]] = field(default_factory=dict)
    heard: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answer: tuple[int, bytes] | None = None

    def put(self, path: str, value: object) -> None:
        """Write a new version, whole: `{"value": ...}` as a rule."""
        self.versions.setdefault(path, []).append((value, self.now))

    def passes(self, seconds: float) -> None:
        """Let its clock go on."""
        self.now += timedelta(seconds=seconds)

    def answered(self, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Answer a GET."""
        self.heard.append((target, headers))
        if self.answer is not None:
            return self.answer
        if headers.get("x-vault-token") != self.token:
            return 403, b'{"errors":["permission denied"]}'
        url = urlsplit(target)
        path = url.path.removeprefix("/v1/secret/data/")
        written = self.versions.get(path, [])
        number = int(parse_qs(url.query).get("version", [len(written)])[0])
        if not 1 <= number <= len(written):
            return 404, b'{"errors":[]}'
        value, moment = written[number - 1]
        told = {
            "created_time": moment.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
            "custom_metadata": None,
            "deletion_time": "",
            "destroyed": False,
            "version": number,
        }
        return 200, json.dumps({"data": {"data": value, "metadata": told}}).encode()


@contextmanager
def vault_server() -> Iterator[VaultServer]:
    """Serve in threads of this process."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = vault.answered(self.path, headers)
            self.send_response_only(status)
            self.send_header("Date", format_datetime(vault.now, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        vault = VaultServer(url=f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield vault
        finally:
            listener.shutdown()
            thread.join()
