"""A mail service that delivers nothing: it keeps what it is given, so that anybody can look.

    python mailbox.py serve HOME [--port N] [--port-file F]
    python mailbox.py export HOME

`POST /messages` with `{"to", "subject", "text"}` and a header `Idempotency-Key` answers 201 with
`{"id"}`; the same key and body again answers 200 with the first id, another body 409. A message is
stored, one file each in HOME/messages, before it is answered.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MAX_BYTES = 1024 * 1024
MEMBERS = {"to", "subject", "text"}


class Mailbox:
    """Messages as files, named by a hash of their key."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "messages"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def put(self, key: str, message: dict[str, str]) -> tuple[int, dict[str, str]]:
        """Store a message once; return the HTTP status and the answer."""
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = self._folder / f"{name}.json"
        with self._lock:
            if path.exists():
                same = json.loads(path.read_text()) == message
                return (200, {"id": name}) if same else (409, {"error": "same key, other body"})
            fresh = path.with_suffix(".part")
            fresh.write_text(json.dumps(message))
            fresh.replace(path)
            return 201, {"id": name}

    def messages(self) -> list[dict[str, str]]:
        """Return all messages."""
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    mailbox: Mailbox

    def do_POST(self) -> None:
        """Take a message."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/messages" or length > MAX_BYTES:
            self._answer(404, {"error": "post to /messages"})
            return
        try:
            message = json.loads(self.rfile.read(length))
        except ValueError:
            message = None
        key = self.headers.get("Idempotency-Key", "")
        if not key or not isinstance(message, dict) or set(message) != MEMBERS:
            self._answer(400, {"error": "a message has a key, and `to`, `subject` and `text`"})
        else:
            self._answer(*self.mailbox.put(key, message))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Stay silent."""

    def _answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve(home: Path, port: int, port_file: Path | None) -> None:
    """Serve until the process is ended."""
    Handler.mailbox = Mailbox(home)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if port_file is not None:
        fresh = port_file.with_name(port_file.name + ".part")
        fresh.write_text(str(server.server_address[1]))
        fresh.replace(port_file)
    server.serve_forever()


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description="A mail service that delivers nothing.")
    parser.add_argument("command", choices=["serve", "export"])
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    if options.command == "export":
        print(json.dumps({"messages": Mailbox(options.home).messages()}, indent=1))
    else:
        serve(options.home, options.port, options.port_file)


if __name__ == "__main__":
    main()
