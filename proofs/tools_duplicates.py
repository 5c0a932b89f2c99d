"""One call of an agent is one effect, where the agent alone would have made many.

The same call is asked for 50 times at once under one key; its tool does the work and then answers
with an error; and it does the work and never answers. Through the gateway, for each class of
effect and on both databases, and without it: as a client does that repeats what failed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import uvicorn

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import AgentName, WorkflowName
from interlock.domain.principal import PrincipalKind, Seat
from interlock.manifest import apply
from interlock.serve.auth import mint_key
from interlock.serve.http import create_app
from interlock.store.keys import AgentPlace
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import (
    CLASSES,
    OUTSIDE_AGENT,
    SESSIONS,
    TOOL_OF,
    session_files,
)
from proofs import plane
from proofs.verdict import Verdict, say

AT_ONCE = 50
ATTEMPTS = 3
"""How often the client without a gateway sends a call that failed."""
TIMEOUT_S = 2.0
_WRITES = [name for name in CLASSES if name != "read"]
_STARTED_S = 30.0
_SETTLED_S = 60.0
_VERSION = "2026-07-28"
_FAULTS: dict[str, Fault | None] = {
    "50 at once": None,
    "done, then an error": Fault(kind="error"),
    "done, then silence": Fault(kind="hang", seconds=60.0),
}


def main() -> Verdict:
    """Make every call in every way and count what the tool server has done."""
    plane.quiet()
    counted: dict[str, dict[str, int]] = {}
    with plane.scratch() as folder, Recorder(folder / "recorder") as recorder:
        with plane.postgres_database() as postgres:
            for database in (None, postgres):
                with _gateway(folder / str(database is None), recorder, database) as (url, key):
                    where = "SQLite" if database is None else "Postgres"
                    counted[f"gateway, {where}"] = _through(url, key, recorder)
        counted["repeated by the client"] = _alone(recorder)
    for way, found in counted.items():
        say(f"{way}: {found}")
    governed = [n for way, found in counted.items() for n in found.values() if "gateway" in way]
    table: JsonObject = {way: {**found} for way, found in counted.items()}
    return Verdict(
        value={"most_effects_of_a_call": max(governed), "fewest": min(governed)},
        goal={"most_effects_of_a_call": 1, "fewest": 1},
        holds=set(governed) == {1},
        figures={"effects": table, "calls": len(governed)},
    )


def _through(url: str, key: str, recorder: Recorder) -> dict[str, int]:
    """Make the calls through the gateway and return the effects of each."""
    form = {"grant_type": "client_credentials", "client_secret": key}
    token = httpx2.post(f"{url}/oauth/token", data=form).json()["access_token"]
    found = {}
    for what, fault in _FAULTS.items():
        for effect_class in _WRITES:
            before = len(recorder.log().effects)
            if fault is not None:
                recorder.arm(fault)
            name = f"{effect_class}/{what}".replace(" ", "_").replace(",", "")
            calls = AT_ONCE if fault is None else 1

            def call(_number: int, name: str = name, tool: str = TOOL_OF[effect_class]) -> str:
                return _called(url, token, tool, name)

            with ThreadPoolExecutor(calls) as clients:
                states = set(clients.map(call, range(calls)))
            _settle(lambda name=name, tool=TOOL_OF[effect_class]: _called(url, token, tool, name))
            found[f"{effect_class}: {what}"] = len(recorder.log().effects) - before
            say(f"{effect_class}, {what}: {sorted(states)}")
    return found


def _settle(ask: object) -> None:
    """Ask for a call until it has ended, or people have it."""
    assert callable(ask)
    pause = threading.Event()
    for _ in range(int(_SETTLED_S / 0.2)):
        if ask() in {"succeeded", "failed", "person"}:
            return
        pause.wait(0.2)


def _called(url: str, token: str, tool: str, key: str) -> str:
    """Make one call and return how it stands."""
    meta: JsonObject = {
        "io.modelcontextprotocol/protocolVersion": _VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "proof", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "interlock/idempotency-key": key,
    }
    name = tool.replace(".", "__")
    params: JsonObject = {"name": name, "arguments": {"text": key}, "_meta": meta}
    body: JsonObject = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": _VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    answer = httpx2.post(f"{url}/mcp", json=body, headers=headers, timeout=60).json()
    result = answer["result"]
    if "a person looks into it" in result["content"][0]["text"]:
        return "person"
    return str(result["_meta"]["interlock/state"])


def _alone(recorder: Recorder) -> dict[str, int]:
    """Make the calls as a client does that knows no keys, and repeats what failed."""

    def call(_number: int) -> None:
        for _ in range(ATTEMPTS):
            try:
                url = f"{recorder.url}/blind/items"
                if httpx2.post(url, json={"text": "x"}, timeout=TIMEOUT_S).is_success:
                    return
            except httpx2.HTTPError:
                continue

    found = {}
    for what, fault in _FAULTS.items():
        before = len(recorder.log().effects)
        calls = AT_ONCE if fault is None else 1
        for _ in range(0 if fault is None else ATTEMPTS):
            assert fault is not None
            recorder.arm(fault)
        with ThreadPoolExecutor(calls) as clients:
            list(clients.map(call, range(calls)))
        found[what] = len(recorder.log().effects) - before
    return found


@contextmanager
def _gateway(folder: Path, recorder: Recorder, database: str | None) -> Iterator[tuple[str, str]]:
    """Run an installation with a worker behind a server; yield its address and an agent's key."""
    interlock = Interlock.open(Config(data_dir=folder, database_url=database, port=0))
    files = session_files(recorder.url, timeout_s=TIMEOUT_S)
    apply.apply(interlock.db, files, by="proof")
    config = uvicorn.Config(create_app(interlock), port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    interlock.start(work=True, schedule=False)
    thread.start()
    pause = threading.Event()
    for _ in range(int(_STARTED_S / 0.01)):
        if server.started or pause.wait(0.01):
            break
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    interlock.url = url
    try:
        yield url, _key(interlock)
    finally:
        server.should_exit = True
        thread.join()
        interlock.close()


def _key(interlock: Interlock) -> str:
    seat = Seat(workflow=WorkflowName(SESSIONS), agent=AgentName(OUTSIDE_AGENT))
    _, secret = interlock.db.run(
        "key.create",
        lambda tx: mint_key(
            tx,
            name="proof",
            kind=PrincipalKind.AGENT,
            roles=frozenset(),
            by="proof",
            place=AgentPlace(seat=seat, environment="dev"),
        ),
    )
    return secret
