"""The installation that proofs measure: a project of function tools, and its workers as processes.

`python -m proofs.plane FOLDER DATABASE AT_ONCE` is one worker. It says `ready` and its name when it
serves, then answers each line of standard input with its figures, and ends when that ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import Run, RunState
from interlock.store import runs
from interlock.tools.functions import EffectContext, functions_by_name, python_function
from scripts import postgres

OPS = Principal(name="ops", kind=PrincipalKind.USER, roles=frozenset({Role.OWNER, Role.OPERATOR}))
MARA = Principal(
    name="mara",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER}),
    groups=frozenset({"data-owners"}),
)
FIVE_READS, FIVE_PAUSES, FIVE_POSTS = (
    WorkflowName(f"five_{what}") for what in ("reads", "pauses", "posts")
)
FOR_SIGNAL, FOR_TIME, FOR_MOMENT, FOR_APPROVAL = (
    WorkflowName(f"wait_for_{what}") for what in ("signal", "time", "moment", "approval")
)
STEPS = 5
PAUSE_S = 0.2
POST_S = 5
TIMER_S, MOMENT_S = 86_400, 90
AT_ONCE = 30
OUTSIDE = "outside"
"""File of what `post` has done: a line with the id of the effect, for each time."""
_READY_S = 60.0
_LOOK_S = 0.02

_PROJECT = """
interlock: v1
kind: Project
name: proofs
title: What the proofs run
include: [defaults]
teams: [platform, security, data-owners]
"""
_SYSTEM = """
interlock: v1
kind: System
name: local
title: Functions of the proofs
owner: platform
"""
_SERVER = """
interlock: v1
kind: Server
name: local-dev
system: local
environment: dev
protocol: python
"""
_GRANT = """
@id("proofs-write") @owner("platform") @why("One workflow of the proofs writes")
permit (principal, action in Action::"write", resource in System::"local");
"""
_TOOL = """
interlock: v1
kind: Tool
name: local.item.{verb}
version: 1
owner: platform
title: Function {verb}
description: Function {verb}
system: local
group: {group}
risk: 1
connector: python
function: {verb}
contract:
  input:
    type: object
    additionalProperties: false
    required: [item]
    properties: {{item: {{type: integer, minimum: 0}}}}
  output:
    type: object
    additionalProperties: false
    required: [item, text]
    properties: {{item: {{type: integer}}, text: {{type: string, maxLength: 100}}}}
  limits: {{timeout_s: {timeout_s}}}
effect: {effect}
records: []
source: {{labels: [], trusted: true}}
sink: {{accepts: [], external: false}}
environments: {{dev: {{server: local-dev}}}}
"""
_PROBED = (
    "{class: probed, probe: {tool: local.item.find@1, args: {reference: 'effect:id'},"
    " found: 'out:/items', lag_s: 0.1}}"
)
_FIND = """
interlock: v1
kind: Tool
name: local.item.find
version: 1
owner: platform
title: Function find
description: Function find
system: local
group: read
risk: 1
connector: python
function: find
contract:
  input:
    type: object
    additionalProperties: false
    required: [reference]
    properties: {reference: {type: string, maxLength: 100}}
  output:
    type: object
    additionalProperties: false
    required: [items]
    properties: {items: {type: array, maxItems: 10, items: {type: object}}}
  limits: {timeout_s: 30}
effect: {class: read}
records: []
source: {labels: [], trusted: true}
sink: {accepts: [], external: false}
environments: {dev: {server: local-dev}}
"""
_WORKFLOW = """
interlock: v1
kind: Workflow
name: {name}
version: 1
title: {name}
owner: platform
department: it
triggers: {{start: {{manual: true, environment: dev}}}}
inputs: {{type: object, additionalProperties: false, properties: {{}}}}
agents: {{}}
tools: [{tool}]
steps:
{steps}
approvals: {approvals}
fallbacks: [{{code: "*", then: stop}}]
success: {{end_state: done, counts: [done], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: 3, by: ops, reason: proofs}}}}
"""
_APPROVALS = "[{tool: local.item.write, by: data-owners, why: writes are approved}]"


async def read(item: int) -> dict[str, object]:
    """Return an item at once."""
    return {"item": item, "text": "as it stands"}


async def pause(item: int) -> dict[str, object]:
    """Return an item after a while, as a tool on the network does."""
    await asyncio.sleep(PAUSE_S)
    return {"item": item, "text": "after a while"}


def outside(folder: Path) -> Iterator[Callable[..., object]]:
    """Yield the functions of an outside world that is a file: `post` adds to it, `find` looks."""
    store = folder / OUTSIDE

    async def post(effect: EffectContext, item: int) -> dict[str, object]:
        """Add a line for an item, in the middle of a while; whoever asks twice has two."""
        await asyncio.sleep(PAUSE_S / 2)
        with store.open("a") as lines:
            lines.write(f"{effect.effect_id}\n")
        await asyncio.sleep(PAUSE_S / 2)
        return {"item": item, "text": effect.effect_id}

    async def find(reference: str) -> dict[str, object]:
        """Return the lines of an effect."""
        lines = store.read_text().split() if store.exists() else []
        return {"items": [{"text": line, "item": 0} for line in lines if line == reference]}

    yield post
    yield find


async def write(item: int) -> dict[str, object]:
    """Return an item as if it had been written."""
    return {"item": item, "text": "written"}


def _project() -> dict[str, str]:
    calls = "".join(
        f"  - {{{{name: s{n}, tool: {{tool}}, args: {{{{item: {n}}}}}}}}}\n" for n in range(STEPS)
    )
    read_one = "  - {name: first, tool: local.item.read, args: {item: 1}}\n"
    then = {
        FOR_SIGNAL: f"  - {{name: hold, wait: go, timeout_s: {TIMER_S}}}",
        FOR_TIME: f"  - {{name: hold, wait: nobody, timeout_s: {TIMER_S}}}",
        FOR_MOMENT: f"  - {{name: hold, wait: nobody, timeout_s: {MOMENT_S}}}",
        FOR_APPROVAL: "  - {name: hold, tool: local.item.write, args: {item: 1}}",
    }
    tools = {"read": "read", "pause": "read", "write": "write", "post": "write"}
    effects = {"read": "{class: read}", "write": "{class: blind}"}
    texts = {
        "project.yaml": _PROJECT,
        "systems/local.yaml": _SYSTEM,
        "servers/local-dev.yaml": _SERVER,
        "policies/grants/proofs.cedar": _GRANT,
    }
    for verb, group in tools.items():
        texts[f"tools/local.item.{verb}.yaml"] = _TOOL.format(
            verb=verb,
            group=group,
            effect=_PROBED if verb == "post" else effects[group],
            timeout_s=POST_S if verb == "post" else 30,
        )
    texts["tools/local.item.find.yaml"] = _FIND
    steps = {
        FIVE_READS: ("local.item.read", calls.format(tool="local.item.read")),
        FIVE_PAUSES: ("local.item.pause", calls.format(tool="local.item.pause")),
        FIVE_POSTS: ("local.item.post, local.item.find", calls.format(tool="local.item.post")),
    } | {name: ("local.item.read", read_one + last) for name, last in then.items()}
    for name, (tool, lines) in steps.items():
        is_asked = name == FOR_APPROVAL
        texts[f"workflows/{name}.yaml"] = _WORKFLOW.format(
            name=name,
            tool=f"{tool}, local.item.write" if is_asked else tool,
            steps=lines,
            approvals=_APPROVALS if is_asked else "[]",
        )
    return texts


def opened(folder: Path, database: str, *, at_once: int = AT_ONCE) -> Interlock:
    """Open the installation in a folder; `database` is a Postgres URL, or empty for SQLite."""
    config = Config(data_dir=folder, database_url=database or None, concurrency=at_once)
    functions = (python_function(f.__name__, f) for f in (read, pause, write, *outside(folder)))
    return Interlock.open(config, functions=functions_by_name(functions))


@contextmanager
def installed(folder: Path, database: str) -> Iterator[Interlock]:
    """Open the installation with its project applied; it starts runs and does no work itself."""
    interlock = opened(folder, database)
    try:
        interlock.apply(_project(), by=OPS, diff=None)
        yield interlock
    finally:
        interlock.close()


def begin(interlock: Interlock, workflow: WorkflowName, count: int) -> list[RunId]:
    """Start runs of a workflow, one transaction each, as callers do."""
    return [
        interlock.start_run(workflow, environment="dev", value={}, by=OPS, key=None)[0]
        for _ in range(count)
    ]


def ended(interlock: Interlock, run_ids: Collection[RunId], *, timeout_s: float) -> list[Run]:
    """Return the runs once all have ended; raises `TimeoutError` if that takes too long."""
    deadline_s = time.monotonic() + timeout_s
    wanted, found = list(run_ids), dict[RunId, Run]()
    while True:
        with interlock.db.reading() as tx:
            # The last one first: while it goes on, the others need not be looked at.
            while wanted and (run := runs.get(tx, wanted[-1])).state.is_final:
                found[wanted.pop()] = run
        if not wanted:
            return [found[run_id] for run_id in run_ids]
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{len(wanted)} runs have not ended after {timeout_s:.0f} s")
        time.sleep(_LOOK_S)


def check_succeeded(found: Collection[Run]) -> None:
    """Raise `RuntimeError` for the first run that did not succeed."""
    for run in found:
        if run.state is not RunState.SUCCEEDED:
            raise RuntimeError(f"a run is `{run.state}`: {run.error_message}")


@contextmanager
def postgres_database() -> Iterator[str]:
    """Give the URL of an empty database on a Postgres server of its own."""
    with postgres.running_server() as server:
        yield server.create_database()


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is removed at the end."""
    with TemporaryDirectory(prefix="interlock-proof-") as name:
        yield Path(name)


class Worker:
    """A worker process; `prefix` is a command that starts it in surroundings of its own."""

    def __init__(
        self, folder: Path, database: str, *, at_once: int = AT_ONCE, prefix: tuple[str, ...] = ()
    ) -> None:
        arguments = [str(folder), database, str(at_once)]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "proofs.plane", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.executor_id = ""

    def ready(self) -> None:
        """Return when it serves; several are started first and then waited for."""
        told = self._line().split()
        if told[:1] != ["ready"]:
            raise RuntimeError("a worker does not start; the reason is above")
        self.executor_id = told[1]

    def figures(self) -> dict[str, int]:
        """Return how many statements it has sent, and how many threads and tasks it has."""
        # INVARIANT: both streams are pipes.
        assert self.process.stdin is not None
        print("figures", file=self.process.stdin, flush=True)
        found: dict[str, int] = json.loads(self._line())
        return found

    def stop(self) -> None:
        """Let it hand back what it runs and end."""
        assert self.process.stdin is not None  # INVARIANT: a pipe
        self.process.stdin.close()
        self.process.wait(_READY_S)

    def kill(self) -> None:
        """End it on the spot."""
        self.process.kill()
        self.process.wait(_READY_S)

    def _line(self) -> str:
        assert self.process.stdout is not None  # INVARIANT: a pipe
        return self.process.stdout.readline()


@contextmanager
def workers(
    folder: Path,
    database: str,
    count: int,
    *,
    at_once: int = AT_ONCE,
    prefix: tuple[str, ...] = (),
) -> Iterator[list[Worker]]:
    """Have so many workers serve until the block ends; those still there are killed then."""
    found = [Worker(folder, database, at_once=at_once, prefix=prefix) for _ in range(count)]
    try:
        for worker in found:
            worker.ready()
        yield found
    finally:
        for worker in found:
            worker.kill()


def quiet() -> None:
    """Let only errors be logged: the last line of a proof is its verdict."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def serve(folder: str, database: str, at_once: str) -> None:
    """Be a worker until standard input ends."""
    quiet()
    interlock = opened(Path(folder), database, at_once=int(at_once))
    statements = 0

    def count(*_told: object) -> None:
        nonlocal statements
        statements += 1

    with interlock.db.listening(count):
        interlock.start()
        print("ready", interlock.executor_id, flush=True)
        for _ in sys.stdin:
            tasks = sum(isinstance(o, asyncio.Task) and not o.done() for o in gc.get_objects())
            found = {"statements": statements, "threads": threading.active_count(), "tasks": tasks}
            print(json.dumps(found), flush=True)
    interlock.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
