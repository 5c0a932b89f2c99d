"""A governed call costs at most 1.5 times an ungoverned one, and a tenth of ContextForge's.

The same call of one upstream tool, one after another, through each gateway in turn: an ungoverned
proxy of the MCP SDK, Interlock, FastMCP's proxy, IBM ContextForge, and none. Each checks a bearer
token. Counted is the processor time of the processes that stand between client and upstream,
databases included, from a way's first call until some time after its last, so that work put off
counts, less what they use when nobody calls.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx2
import psutil

from interlock.domain.canonical import Json, JsonObject
from interlock.testing.process import free_port
from proofs import contextforge, proxies
from proofs.gateway_project import AGENT, project
from proofs.installation import installed
from proofs.mcp_call import NEWEST, OLDER, request
from proofs.processes import cpu_s, listening
from proofs.verdict import Verdict, say, sized
from scripts import peers, postgres

MOST_OF_UNGOVERNED = 1.5
LEAST_OF_CONTEXTFORGE = 10.0
ROUNDS, ROUNDS_LONG = 5, 15
CALLS = 150
WARM_UP = 20
SETTLED_S = 1.5
IDLE_S = 15.0
DIRECT, BASELINE, RIVAL = "direct", "ungoverned", "contextforge"
_PROXIES = Path(proxies.__file__)
_TOKEN = secrets.token_urlsafe(32)
_DIRECT = "no gateway: neither client nor upstream is counted, so only its time says something"
_CHECKED = "one process; one hashed bearer token; Host and Origin checked; stateless, JSON"
_PROXIES_ARE = {
    BASELINE: f"mcp {version('mcp')}: low-level Server, one Client that stays; {_CHECKED}",
    "fastmcp": f"fastmcp {peers.versions('fastmcp')['fastmcp']}: create_proxy(url); {_CHECKED}",
    "fastmcp_reused": (
        f"fastmcp {peers.versions('fastmcp')['fastmcp']}: create_proxy(client that stays);"
        f" {_CHECKED}"
    ),
}
_INTERLOCK_IS = (
    "`interlock serve`: one process with worker and scheduler; {database}, its processes counted;"
    " session token, default policies but for the limit of 20 writes, ledger, trace; tool `{what}`,"
    " no approval; MCP 2026-07-28"
)
_CONTEXTFORGE_IS = (
    "mcp-contextforge-gateway {version}: `mcpgateway`, one uvicorn process; Postgres, its processes"
    " counted; JWT of an administrator, its user looked up; a virtual server; plugins, Redis,"
    " console and audit off, as by default; limit of 100 requests a minute off; loopback allowed;"
    " MCP 2025-11-25, the newest that it speaks"
)


@dataclass(slots=True, kw_only=True)
class Row:
    """One way to the tool: how it is configured, and what was measured.

    Its processes are its own, if it has one, and then that of its database server, if it has one.
    """

    processes: Sequence[psutil.Process]
    configuration: str
    url: str
    tool: str
    token: str = _TOKEN
    era: str = NEWEST
    rounds: list[Measured] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a row used in its turn: processor seconds, the turn's length, times of calls.

    Of `cpu_s`, its database server used `database_s`.
    """

    cpu_s: float
    database_s: float = 0.0
    elapsed_s: float
    calls_ms: Sequence[float]

    def cpu_ms(self, idle: float) -> float:
        """Return the processor time of a call, less what is used at rest (cores)."""
        return (self.cpu_s - idle * self.elapsed_s) / len(self.calls_ms) * 1000


def main() -> Verdict:
    """Start every gateway, let them take turns, and compare."""
    with ExitStack() as stack:
        rows = _rows(stack)
        for name, row in rows.items():
            _ = _call(row, WARM_UP)
            say(f"{name} answers: {row.configuration}")
        before = _at_rest(rows)
        for number in range(sized(ROUNDS, long=ROUNDS_LONG)):
            for row in rows.values():
                row.rounds.append(_turn(row))
            told = ", ".join(f"{n} {r.rounds[-1].cpu_ms(before[n]):.1f}" for n, r in rows.items())
            say(f"round {number + 1}, CPU ms a call: {told}")
        after = _at_rest(rows)
    idle = {name: (before[name] + after[name]) / 2 for name in rows}
    verdict = judged({name: row.rounds for name, row in rows.items()}, idle)
    configured: dict[str, Json] = {name: row.configuration for name, row in rows.items()}
    return replace(verdict, figures=verdict.figures | {"configurations": configured})


def judged(rounds: Mapping[str, Sequence[Measured]], idle: Mapping[str, float]) -> Verdict:
    """Compare the rows of `interlock_...` with the ungoverned one and the rival, round by round."""
    cpu = {name: [one.cpu_ms(idle[name]) for one in found] for name, found in rounds.items()}
    ours = [name for name in rounds if name.startswith("interlock")]
    above = {name: _ratio(cpu[name], cpu[BASELINE]) for name in ours}
    below = {name: _ratio(cpu[RIVAL], cpu[name]) for name in ours}
    table: dict[str, Json] = {
        name: {"p50_ms": round(median(median(one.calls_ms) for one in found), 2)}
        if name == DIRECT
        else {
            "cpu_ms": round(median(cpu[name]), 2),
            "of_ungoverned": _ratio(cpu[name], cpu[BASELINE]),
            "contextforge_of_it": _ratio(cpu[RIVAL], cpu[name]),
            "database_ms": round(median(one.database_s / CALLS for one in found) * 1000, 2),
            "p50_ms": round(median(median(one.calls_ms) for one in found), 2),
            "idle_percent": round(idle[name] * 100, 2),
        }
        for name, found in rounds.items()
    }
    return Verdict(
        value={"of_ungoverned": max(above.values()), "contextforge_of_ours": min(below.values())},
        goal={"of_ungoverned": MOST_OF_UNGOVERNED, "contextforge_of_ours": LEAST_OF_CONTEXTFORGE},
        holds=max(above.values()) <= MOST_OF_UNGOVERNED
        and min(below.values()) >= LEAST_OF_CONTEXTFORGE,
        figures={"rows": table, "calls_a_round": CALLS},
    )


def _ratio(row: Sequence[float], other: Sequence[float]) -> float:
    return round(median(a / b for a, b in zip(row, other, strict=True)), 2)


def _rows(stack: ExitStack) -> dict[str, Row]:
    """Start the upstream and every gateway, each with a database of its own where it has one."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="interlock-proof-")))
    _, upstream = stack.enter_context(_proxy("upstream", folder, sys.executable))
    rows = {DIRECT: Row(processes=(), configuration=_DIRECT, url=upstream, tool=proxies.READ)}
    fastmcp = peers.install("fastmcp") / "bin" / "python"
    for name, role, python in (
        (BASELINE, "lowlevel", sys.executable),
        ("fastmcp_reused", "fastmcp_reused", fastmcp),
        ("fastmcp", "fastmcp", fastmcp),
    ):
        process, url = stack.enter_context(_proxy(role, folder, python, upstream))
        rows[name] = Row(
            processes=(process,), configuration=_PROXIES_ARE[name], url=url, tool=proxies.READ
        )
    for database in ("sqlite", "postgres"):
        for what, verb in (("read", proxies.READ), ("write", proxies.WRITE)):
            name = f"interlock_{database}_{what}"
            row = stack.enter_context(_interlock(folder / name, upstream, database, verb))
            rows[name] = row
    rows[RIVAL] = stack.enter_context(_contextforge(folder / RIVAL, upstream))
    return rows


@contextmanager
def _proxy(
    role: str, folder: Path, python: str | Path, *target: str
) -> Iterator[tuple[psutil.Process, str]]:
    port = free_port()
    command: list[str | Path] = [python, _PROXIES, role, str(port), *target]
    url = f"http://127.0.0.1:{port}/mcp"
    environment = {proxies.VARIABLE: _TOKEN}
    with listening(command, folder=folder / role, port=port, environment=environment) as process:
        yield process, url


@contextmanager
def _interlock(folder: Path, upstream: str, database: str, verb: str) -> Iterator[Row]:
    """Run an installation as its operator does, with a session of an outside agent."""
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        keepers: list[psutil.Process] = []
        if database == "postgres":
            server = stack.enter_context(postgres.running_server())
            assert server.keeper is not None  # INVARIANT: it was started here
            keepers.append(psutil.Process(server.keeper.pid))
            environment["INTERLOCK_DATABASE_URL"] = server.create_database()
        running = installed(folder, project(upstream), environment=environment)
        installation = stack.enter_context(running)
        yield Row(
            processes=(installation.process, *keepers),
            configuration=_INTERLOCK_IS.format(database=database, what=verb),
            url=f"{installation.url}/mcp",
            tool=f"upstream__word__{verb}",
            token=installation.token(AGENT),
        )


@contextmanager
def _contextforge(folder: Path, upstream: str) -> Iterator[Row]:
    with contextforge.running(folder) as rival:
        gateway: JsonObject = {"name": "up", "url": upstream, "transport": "STREAMABLEHTTP"}
        rival.ask("POST", "/gateways", gateway)
        yield Row(
            processes=rival.processes,
            configuration=_CONTEXTFORGE_IS.format(version=contextforge.version()),
            url=rival.serve_all(),
            tool=f"up-{proxies.READ}",
            token=rival.token,
            era=OLDER,
        )


def _turn(row: Row) -> Measured:
    """Let a row make its calls, wait for what it does afterwards, and return what it used."""
    began_s = time.monotonic()
    before_s, database_before_s = cpu_s(row.processes), cpu_s(row.processes[1:])
    calls_ms = _call(row, CALLS)
    time.sleep(SETTLED_S)
    return Measured(
        cpu_s=cpu_s(row.processes) - before_s,
        database_s=cpu_s(row.processes[1:]) - database_before_s,
        elapsed_s=time.monotonic() - began_s,
        calls_ms=calls_ms,
    )


def _at_rest(rows: Mapping[str, Row]) -> dict[str, float]:
    """Return what the processes of each row use while nobody calls, as a part of one core."""
    before = {name: cpu_s(row.processes) for name, row in rows.items()}
    time.sleep(IDLE_S)
    return {name: (cpu_s(row.processes) - before[name]) / IDLE_S for name, row in rows.items()}


def _call(row: Row, count: int) -> list[float]:
    """Make calls, one after another on one connection, and return how long each took, in ms."""
    headers, body = request(row.tool, {"word": "a"}, token=row.token, era=row.era)
    taken = []
    with httpx2.Client(headers=headers, timeout=60, trust_env=False) as client:
        for _ in range(count):
            began_s = time.perf_counter()
            answer = client.post(row.url, json=body)
            taken.append((time.perf_counter() - began_s) * 1000)
            if not answer.is_success or _result(answer).get("structuredContent") != proxies.ANSWER:
                raise RuntimeError(f"`{row.url}`: {answer.status_code} {answer.text[:500]}")
    return taken


def _result(answer: httpx2.Response) -> JsonObject:
    found: JsonObject = answer.json().get("result", {})
    return found
