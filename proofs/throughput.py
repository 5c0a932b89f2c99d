"""A governed run of five calls is at least 0.8 times as fast as raw DBOS with five steps.

Both go through the same queue of the same worker on the same database, in turn: contracts, policy,
ledger, trace and journal on the one side, a step that returns the same value on the other. Beside
them stand the work written by hand with two commits a step in one thread, and LangGraph with
its checkpointer, in an environment of its own that `make rivals` installs.
"""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median

import psycopg
from dbos import DBOS

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.runtime.durable.engine import QUEUE
from proofs import plane
from proofs.verdict import Verdict, say, sized

GOAL = 0.8
START_GOAL_MS = 100.0
ROUNDS, ROUNDS_LONG = 30, 90
RUNS = 20
SINGLE_RUNS = 20
RIVALS = Path(__file__).resolve().parent.parent / ".cache" / "rivals" / "bin" / "python"
_RIVAL = Path(__file__).with_name("rival.py")
_ENOUGH_S = 300.0
_LOOK_S = 0.02

Contender = Callable[[int], None]
"""Does so many runs of five steps and returns when all have ended."""


def main() -> Verdict:
    """Measure both databases; both ratios and both times to start must hold."""
    plane.quiet()
    figures: JsonObject = {}
    ratios: dict[str, float] = {}
    starts: dict[str, float] = {}
    with plane.postgres_database() as database:
        for kind, url in {"sqlite": "", "postgres": database}.items():
            ratios[kind], starts[kind], figures[kind] = _measured(kind, url)
    return Verdict(
        value={kind: round(ratio, 2) for kind, ratio in ratios.items()},
        goal=GOAL,
        holds=min(ratios.values()) >= GOAL and max(starts.values()) <= START_GOAL_MS,
        figures=figures | {"start_goal_ms": START_GOAL_MS, "runs_a_round": RUNS},
    )


def _measured(kind: str, url: str) -> tuple[float, float, JsonObject]:
    """Return the median ratio to raw DBOS, the median time to start in ms, and all figures."""
    taken: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with plane.scratch() as folder, plane.installed(folder, url) as interlock, ExitStack() as stack:
        interlock.start()
        contenders: dict[str, Contender] = {
            "governed": _governed(interlock),
            "dbos": _dbos(),
            "by_hand": stack.enter_context(_by_hand(folder, url)),
        }
        if RIVALS.exists():
            contenders["langgraph"] = stack.enter_context(_langgraph(folder, url))
        for contender in contenders.values():
            contender(RUNS)
        start_ms = _start_ms(interlock)
        for number in range(sized(ROUNDS, long=ROUNDS_LONG)):
            for name, contender in contenders.items():
                began_s, began_cpu_s = time.monotonic(), time.process_time()
                contender(RUNS)
                taken.setdefault(name, []).append((time.monotonic() - began_s) / RUNS * 1000)
                cpu.setdefault(name, []).append((time.process_time() - began_cpu_s) / RUNS * 1000)
            told = ", ".join(f"{name} {times[-1]:.1f} ms a run" for name, times in taken.items())
            say(f"{kind} round {number + 1}: {told}")
    ratio = median(a / b for a, b in zip(taken["dbos"], taken["governed"], strict=True))
    table: dict[str, Json] = {
        name: {"ms_a_run": round(median(times), 2), "cpu_ms_a_run": round(median(cpu[name]), 2)}
        for name, times in taken.items()
    }
    absent: Json = "absent: `make rivals` installs it"
    return ratio, start_ms, {"langgraph": absent, **table, "start_ms": round(start_ms, 1)}


def _governed(interlock: Interlock) -> Contender:
    def work(count: int) -> None:
        run_ids = plane.begin(interlock, plane.FIVE_READS, count)
        plane.check_succeeded(plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S))

    return work


def _start_ms(interlock: Interlock) -> float:
    """Return the median time from an accepted trigger to the claim, one run after another."""
    waited: list[int] = []
    for _ in range(SINGLE_RUNS):
        run_ids = plane.begin(interlock, plane.FIVE_READS, 1)
        (run,) = plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S)
        waited.append((run.started_us or 0) - run.created_us)
    return median(waited) / 1000


def _dbos() -> Contender:
    """Return raw DBOS on the worker's own queue; its functions are known once the worker runs."""

    async def step(item: int) -> dict[str, object]:
        return await plane.read(item)

    read = DBOS.step()(step)

    async def flow() -> None:
        for item in range(plane.STEPS):
            await read(item)

    raw = DBOS.workflow(name="raw")(flow)

    def work(count: int) -> None:
        handles = [DBOS.enqueue_workflow(QUEUE, raw) for _ in range(count)]
        for handle in handles:
            _ = handle.get_result(polling_interval_sec=_LOOK_S)

    return work


@contextmanager
def _by_hand(folder: Path, url: str) -> Iterator[Contender]:
    """Give an intent and an outcome a step, each a commit, one after another, and nothing else."""
    mark = "%s" if url else "?"
    with closing(_connected(folder, url)) as connection:
        connection.execute("CREATE TABLE by_hand (run integer, step integer, value text)")
        connection.commit()

        def work(count: int) -> None:
            for run in range(count):
                for step in range(plane.STEPS):
                    for value in ("intent", "outcome"):
                        insert = f"INSERT INTO by_hand VALUES ({mark}, {mark}, {mark})"  # noqa: S608
                        connection.execute(insert, (run, step, value))
                        connection.commit()

        yield work


def _connected(folder: Path, url: str) -> sqlite3.Connection | psycopg.Connection:
    if url:
        return psycopg.connect(url.replace("postgresql+psycopg", "postgresql"))
    connection = sqlite3.connect(folder / "by_hand.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


@contextmanager
def _langgraph(folder: Path, url: str) -> Iterator[Contender]:
    command = [str(RIVALS), str(_RIVAL), url or str(folder / "langgraph.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        # INVARIANT: both streams are pipes.
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answer = process.stdin, process.stdout

        def work(count: int) -> None:
            print(count, file=ask, flush=True)
            if answer.readline().strip() != "done":
                raise RuntimeError("the rival does not work; the reason is above")

        yield work
        ask.close()
