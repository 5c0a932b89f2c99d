"""The recording tool server: tools of every effect class that keep a record of what reached them.

    python -m interlock.testing.recorder --store F [--port N] [--port-file F]

It stands outside the product: own process, own durable record. Tests compare what the ledger says
was done with what was received and applied here.

| request | class | guard |
|---|---|---|
| `GET /read/items?reference=R` | read | none; finds the items of all classes |
| `POST /keyed/items` | keyed | `Idempotency-Key` (needed); same key, other body: 409 |
| `POST /conditional/links`, then `POST` to the `link` it returns | conditional | a used link: 400 |
| `PUT /conditional/items/ID` | conditional | `If-Match` (without: 428; other version: 412) |
| `POST /probed/items` | probed | none; `GET /probed/items?reference=R` finds it after the lag |
| `POST /blind/items` | blind | none, and nothing can be looked up |

A write takes a JSON object, whose `reference` is kept, and answers 200 or 201 with an item:
`{"id", "version", "reference", "body"}`; a search answers `{"items": [...]}`. All classes but blind
also answer `GET /CLASS/items` and `GET /CLASS/items/ID`, whose `ETag` is the version.

`POST /faults` arms a fault (see `Fault`); `GET /log?requests=N&effects=M&wait_s=S` returns the
record, after waiting until it has that many entries. Neither is part of the record.
"""

from __future__ import annotations

import argparse
import http.client
import json
import secrets
import socket
import struct
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args
from urllib.parse import parse_qs, urlsplit

from interlock.domain.canonical import Json, JsonObject, digest, parse
from interlock.domain.errors import InputError, JsonError, UnavailableError
from interlock.domain.record import from_json, object_to_json
from interlock.testing.httpd import JsonHandler, serve
from interlock.testing.process import ServerProcess, module_command
from interlock.testing.recording import (
    Item,
    KeyReusedError,
    LinkSpentError,
    ReceivedRequest,
    Record,
    Recording,
    VersionError,
)

EffectClass = Literal["read", "keyed", "conditional", "probed", "blind"]
Kind = Literal[
    "refuse", "throttle", "delay", "hang", "reset", "error", "cut", "schema", "oversized"
]
OVERSIZED_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that waits for requests with that method whose path begins with `path`.

    Before anything is applied: `refuse` (503), `throttle` (429), both with `Retry-After: 1`, and
    `delay` (goes on after `seconds`, whether the caller still waits or not). After it is applied:
    `hang` (answers after `seconds`), `reset` (the connection), `error` (answers `status`), `cut`
    (half of the JSON), `schema` (JSON of another shape), `oversized` (8 MB).
    """

    kind: Kind
    method: str = "POST"
    path: str = "/"
    count: int = 1
    seconds: float = 60.0
    status: int = 500


class Recorder(ServerProcess):
    """The recording tool server as a process; `store` stays when it is killed."""

    def __init__(self, folder: Path, *, key_ttl_s: float = 3600.0, lag_s: float = 0.0) -> None:
        self.store = folder / "record.db"
        options = ["--store", str(self.store), "--key-ttl-s", str(key_ttl_s), "--lag-s", str(lag_s)]
        super().__init__(module_command("interlock.testing.recorder", *options), folder=folder)

    def arm(self, fault: Fault) -> None:
        """Let the next requests that it describes meet a fault; earlier ones come first."""
        self._ask("POST", "/faults", object_to_json(fault))

    def log(self) -> Record:
        """Return the record so far."""
        return self.wait_for()

    def wait_for(self, *, requests: int = 0, effects: int = 0, seconds: float = 30.0) -> Record:
        """Return the record as soon as it has so many entries.

        Raises `UnavailableError` if it has not after so many seconds.
        """
        query = f"requests={requests}&effects={effects}&wait_s={seconds}"
        return from_json(Record, self._ask("GET", f"/log?{query}", None))

    def _ask(self, method: str, path: str, body: Json) -> Json:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request(method, path, body=json.dumps(body))
            reply = connection.getresponse()
            text = reply.read().decode()
        if reply.status != http.client.OK:
            raise UnavailableError(f"the recording server says: {text}")
        answer: Json = json.loads(text)
        return answer


class _Answer:
    def __init__(self, status: int, value: Json, **headers: str) -> None:
        self.status, self.value, self.headers = status, value, headers


class _Handler(JsonHandler):
    recording: ClassVar[Recording]
    faults: ClassVar[list[Fault]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:  # noqa: N802 - the standard library's name
        self._handle()

    do_POST = do_PUT = do_GET  # noqa: N815 - the standard library's names

    def _handle(self) -> None:
        raw = self.body()
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/log":
            self._send(self._log(query))
        elif url.path == "/faults":
            self._send(self._arm(raw))
        else:
            self._use_tool(url.path, raw, query)

    def _use_tool(self, path: str, raw: bytes, query: dict[str, str]) -> None:
        """Log the request, whatever it is; then answer it, or let it meet its fault."""
        body: Json = None
        is_readable = True
        try:
            body = parse(raw) if raw else None
        except JsonError:
            is_readable = False
        value = body if isinstance(body, dict) else None
        reference = (value or query).get("reference")
        headers: list[Json] = [f"{name.lower()}: {v}" for name, v in self.headers.items()]
        request = self.recording.receive(
            method=self.command,
            path=self.path,
            header_hash=digest(headers),
            key=self.headers.get("Idempotency-Key"),
            reference=reference if isinstance(reference, str) else None,
            body=raw.decode(errors="replace") if raw else None,
            body_hash=digest(body) if raw and is_readable else None,
        )
        fault = self._next_fault(path)
        if fault and fault.kind == "refuse":
            self._send(_Answer(503, {"error": "armed fault"}, Retry_After="1"))
        elif fault and fault.kind == "throttle":
            self._send(_Answer(429, {"error": "armed fault"}, Retry_After="1"))
        elif fault and fault.kind == "delay":
            time.sleep(fault.seconds)
            self._send(self._act(path, request, value))
        elif fault:
            self._spoil(fault, self._act(path, request, value))
        else:
            self._send(self._act(path, request, value))

    def _send(self, answer: _Answer) -> None:
        self.send_json(answer.status, answer.value, **answer.headers)

    def _act(self, path: str, request: ReceivedRequest, body: JsonObject | None) -> _Answer:
        """Do what a request asks and return the answer."""
        match [self.command, *path.strip("/").split("/")]:
            case ["GET", tool, "items", *rest] if tool in get_args(EffectClass) and tool != "blind":
                return self._look_up(tool, request, rest)
            case ["POST", "conditional", "links"]:
                secret = secrets.token_hex(16)
                self.recording.give_link(secret)
                address = f"http://{self.headers['Host']}/conditional/links/{secret}"
                return _Answer(201, {"link": address})
            case ["POST" | "PUT", *_] if body is None:
                return _Answer(400, {"error": "a write needs a JSON object"})
            case ["POST" | "PUT", tool, *rest] if body is not None:
                return self._write(tool, rest, request, body)
            case _:
                return _Answer(404, {"error": f"there is nothing at `{path}`"})

    def _look_up(self, tool: str, request: ReceivedRequest, rest: list[str]) -> _Answer:
        kind = None if tool == "read" else tool
        if not rest:
            found = self.recording.search(kind, reference=request.reference)
            return _Answer(200, {"items": [_shape(item) for item in found]})
        item = self.recording.find(kind, _number(rest[0])) if len(rest) == 1 else None
        if item is None:
            return _Answer(404, {"error": "no such item"})
        return _Answer(200, _shape(item), ETag=f'"{item.version}"')

    def _write(
        self, tool: str, rest: list[str], request: ReceivedRequest, body: JsonObject
    ) -> _Answer:
        try:
            match [self.command, tool, *rest]:
                case ["POST", "probed" | "blind", "items"]:
                    return _created(self.recording.create(request, tool, body))
                case ["POST", "keyed", "items"]:
                    if request.key is None:
                        return _Answer(400, {"error": "the header `Idempotency-Key` is missing"})
                    return _created(self.recording.create_keyed(request, tool, body))
                case ["POST", "conditional", "links", secret]:
                    item = self.recording.create_linked(request, tool, body, secret=secret)
                    return _created(item)
                case ["PUT", "conditional", "items", identity]:
                    return self._change(request, body, _number(identity))
                case _:
                    return _Answer(404, {"error": f"there is nothing at `{self.path}`"})
        except KeyReusedError:
            return _Answer(409, {"error": "the key was used with another body"})
        except LinkSpentError:
            return _Answer(400, {"error": "the link was used or never given out"})
        except VersionError:
            return _Answer(412, {"error": "the item has another version"})

    def _change(self, request: ReceivedRequest, body: JsonObject, item_id: int) -> _Answer:
        expected = self.headers.get("If-Match")
        if expected is None:
            return _Answer(428, {"error": "the header `If-Match` is missing"})
        version = _number(expected.strip('"'))
        changed = self.recording.change(
            request, "conditional", body, item_id=item_id, version=version
        )
        if changed is None:
            return _Answer(404, {"error": "no such item"})
        return _Answer(200, _shape(changed), ETag=f'"{changed.version}"')

    def _log(self, query: dict[str, str]) -> _Answer:
        wanted = {name: int(query.get(name, 0)) for name in ("requests", "effects")}
        seconds = float(query.get("wait_s", 0))
        is_reached = self.recording.wait_until(**wanted, seconds=seconds)
        record = self.recording.log()
        if not is_reached:
            have = f"{len(record.requests)} requests and {len(record.effects)} effects"
            return _Answer(504, {"error": f"{have} after {seconds} s"})
        return _Answer(200, object_to_json(record))

    def _arm(self, raw: bytes) -> _Answer:
        try:
            fault = from_json(Fault, parse(raw))
        except InputError as error:
            return _Answer(400, {"error": f"this is no fault: {error}"})
        with self.lock:
            self.faults.append(fault)
        return _Answer(200, {})

    def _next_fault(self, path: str) -> Fault | None:
        """Return the first armed fault that waits for this request, and count it."""
        with self.lock:
            for index, fault in enumerate(self.faults):
                if fault.method == self.command and path.startswith(fault.path):
                    left = [replace(fault, count=fault.count - 1)] if fault.count > 1 else []
                    self.faults[index : index + 1] = left
                    return fault
        return None

    def _spoil(self, fault: Fault, answer: _Answer) -> None:
        """Send a spoiled answer, although all is done."""
        match fault.kind:
            case "hang":
                time.sleep(fault.seconds)
                self._send(answer)
            case "reset":
                self._reset()
            case "error":
                self.send_json(fault.status, {"error": "armed fault"})
            case "cut":
                data = json.dumps(answer.value).encode()
                self.send_bytes(answer.status, data[: len(data) // 2])
            case "schema":
                self.send_json(answer.status, {"unexpected": [1, 2, 3]})
            case _:
                self.send_json(answer.status, {"filler": "x" * OVERSIZED_BYTES})

    def _reset(self) -> None:
        """Close the connection so that the caller sees a reset, not an end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.rfile.close()
        self.connection.close()


def _created(item: Item) -> _Answer:
    return _Answer(201, _shape(item))


def _shape(item: Item) -> JsonObject:
    return {
        "id": str(item.id),
        "version": item.version,
        "reference": item.reference,
        "body": item.body,
    }


def _number(text: str) -> int:
    """Return a positive number, or 0, which no item has."""
    return int(text) if text.isascii() and text.isdigit() else 0


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description="tools that record what reaches them")
    parser.add_argument("--store", type=Path, required=True, help="the SQLite file of the record")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="receives the port once it listens")
    parser.add_argument("--key-ttl-s", type=float, default=3600.0)
    parser.add_argument("--lag-s", type=float, default=0.0, help="until a probe finds a write")
    args = parser.parse_args()
    _Handler.recording = Recording(args.store, key_ttl_s=args.key_ttl_s, lag_s=args.lag_s)
    serve(_Handler, port=args.port, port_file=args.port_file)


if __name__ == "__main__":
    main()
