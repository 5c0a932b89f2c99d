"""One call of an agent is one effect, where the agent alone would have made many.

The same call is asked for 50 times at once under one key; its tool does the work and then answers
with an error; and it does the work and never answers. Through the gateway, for each class of
effect and on both databases, and without it: as a client does that repeats what failed, and
through IBM ContextForge at its defaults and with its retry switched off. No contract of the proof
says that 503 means nothing was done, as here it does not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
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
from proofs import contextforge, plane
from proofs.contextforge import ContextForge
from proofs.mcp_call import OLDER, request
from proofs.verdict import Verdict, say

AT_ONCE = 50
ATTEMPTS = 3
"""How often the client without a gateway sends a call that failed."""
TIMEOUT_S = 2.0
_WRITES = [name for name in CLASSES if name != "read"]
_STARTED_S = 30.0
_SETTLED_S = 60.0
_RIVAL_S = 90.0
_SETTINGS: JsonObject = {
    "defaults": {**contextforge.DEFAULTS},
    "retry off": {**contextforge.DEFAULTS, **contextforge.RETRY_OFF},
}
_SAYS_NO_EFFECT = ", 503]"
_FAULTS: dict[str, Fault | None] = {
    "50 at once": None,
    "done, then 503": Fault(kind="error", status=503),
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
        for way, more in (("defaults", {}), ("retry off", contextforge.RETRY_OFF)):
            with contextforge.running(folder / way, more) as rival:
                counted[f"ContextForge, {way}"] = _rival(rival, folder / way)
    for way, found in counted.items():
        say(f"{way}: {found}")
    governed = [n for way, found in counted.items() for n in found.values() if "gateway" in way]
    table: JsonObject = {way: {**found} for way, found in counted.items()}
    return Verdict(
        value={"most_effects_of_a_call": max(governed), "fewest": min(governed)},
        goal={"most_effects_of_a_call": 1, "fewest": 1},
        holds=set(governed) == {1},
        figures={
            "effects": table,
            "calls": len(governed),
            "contextforge": {"version": contextforge.version(), "settings": _SETTINGS},
        },
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
    name = tool.replace(".", "__")
    headers, body = request(name, {"text": key}, token=token, key=key)
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


def _rival(rival: ContextForge, folder: Path) -> dict[str, int]:
    """Make each call once through ContextForge, each to a tool server of its own; count effects."""
    with ExitStack() as stack:
        recorders = {
            what: stack.enter_context(Recorder(folder / str(number)))
            for number, what in enumerate(_FAULTS)
        }
        for number, recorder in enumerate(recorders.values()):
            tool: JsonObject = {
                "name": f"create-{number}",
                "url": f"{recorder.url}/blind/items",
                "description": "Create an item",
                "integration_type": "REST",
                "request_type": "POST",
                "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
            }
            rival.ask("POST", "/tools", {"tool": tool})
        url = rival.serve_all()
        for number, (what, fault) in enumerate(_FAULTS.items()):
            if fault is not None:
                recorders[what].arm(replace(fault, count=ATTEMPTS))
            told = _asked(rival, url, f"create-{number}", AT_ONCE if fault is None else 1)
            say(f"ContextForge, {what}: {told}")
        return {what: len(recorder.log().effects) for what, recorder in recorders.items()}


def _asked(rival: ContextForge, url: str, tool: str, count: int) -> str:
    """Make one call so many times at once, under one key; return one of the answers."""
    headers, body = request(tool, {"text": "x"}, token=rival.token, era=OLDER, key="one")

    def call(_number: int) -> str:
        return httpx2.post(url, json=body, headers=headers, timeout=_RIVAL_S).text

    with ThreadPoolExecutor(count) as clients:
        return min(clients.map(call, range(count)))


@contextmanager
def _gateway(folder: Path, recorder: Recorder, database: str | None) -> Iterator[tuple[str, str]]:
    """Run an installation with a worker behind a server; yield its address and an agent's key."""
    interlock = Interlock.open(Config(data_dir=folder, database_url=database, port=0))
    files = session_files(recorder.url, timeout_s=TIMEOUT_S)
    honest = {path: text.replace(_SAYS_NO_EFFECT, "]") for path, text in files.items()}
    apply.apply(interlock.db, honest, by="proof")
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
