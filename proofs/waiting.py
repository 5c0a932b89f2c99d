"""10,000 waiting runs cost less than 300 MB and 5 % of a core, and all go on after a kill.

A worker without runs is the baseline. Then 10,000 runs take a step and wait: for a signal, a time,
an approval. Over a while their worker is measured against the baseline, killed with signal 9 and
started again; then runs are signalled one by one and all at once, approved, timed out and
cancelled, and signals race the waits of new runs. Each run goes on exactly once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from interlock.app import Interlock
from interlock.calls import approve
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import RunId, StepName, WorkflowName
from interlock.domain.run import RunState
from interlock.store import approvals, effects, journal, runs
from interlock.store.tx import Tx
from proofs import plane
from proofs.plane import FOR_APPROVAL, FOR_MOMENT, FOR_SIGNAL, FOR_TIME, Worker
from proofs.verdict import Verdict, say, sized

WAITING = 10_000
GOALS: dict[str, float] = {
    "more_mb": 300.0,
    "more_cpu_percent": 5.0,
    "wake_ms": 100.0,
    "late_s": 2.0,
}
_WINDOW_S, _WINDOW_LONG_S = 20, 60
_SINGLE, _BURST = 50, 300
_ENOUGH_S = 3600.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a worker costs: resident MB, percent of a core, statements a second, threads, tasks."""

    mb: float
    cpu_percent: float
    statements_s: float
    threads: int
    tasks: int


def main() -> Verdict:
    """Prove it on Postgres, and with `LONG=1` also on SQLite, whose writer is one."""
    plane.quiet()
    found: dict[str, JsonObject] = {}
    with plane.postgres_database() as database:
        found["postgres"] = _proved(database)
        if sized(0, long=1):
            found["sqlite"] = _proved("")
    worst: dict[str, float] = {}
    for figures in found.values():
        for name in GOALS:
            worst[name] = max(worst.get(name, float("-inf")), _number(figures[name]))
    is_still = all(figures["is_equal_at_rest"] for figures in found.values())
    value: Json = dict(worst)
    goal: Json = dict(GOALS)
    holds = is_still and all(worst[name] <= GOALS[name] for name in GOALS)
    return Verdict(value=value, goal=goal, holds=holds, figures={**found, "waiting": WAITING})


def _number(value: Json) -> float:
    # INVARIANT: the figures that have goals are numbers.
    assert isinstance(value, int | float)
    return float(value)


def _proved(database: str) -> JsonObject:
    """Return the figures for one database; raises if a run is lost, doubled or late."""
    with plane.scratch() as folder, plane.installed(folder, database) as interlock:
        with plane.workers(folder, database, 1) as (worker,):
            idle = _cost(worker)
            say(f"without runs: {idle}")
            third = WAITING // 3
            with ExitStack() as helped:
                if database:
                    # A second worker, which is gone before anything is measured.
                    helped.enter_context(plane.workers(folder, database, 1))
                by_kind = {
                    name: _parked(interlock, name, count)
                    for name, count in (
                        (FOR_TIME, WAITING - 2 * third - _BURST),
                        (FOR_SIGNAL, third),
                        (FOR_APPROVAL, third),
                        (FOR_MOMENT, _BURST),
                    )
                }
            busy = _cost(worker)
            say(f"with {WAITING} waiting runs: {busy}")
            worker.kill()
        with plane.workers(folder, database, 1) as (worker,):
            again = _cost(worker)
            say(f"after a kill and a new start: {again}")
            _check_waiting(interlock, {run for ids in by_kind.values() for run in ids})
            woken = _wakes(interlock, by_kind)
    return {
        "more_mb": round(max(busy.mb, again.mb) - idle.mb, 1),
        "more_cpu_percent": round(max(busy.cpu_percent, again.cpu_percent) - idle.cpu_percent, 2),
        "is_equal_at_rest": (again.threads, again.tasks) == (idle.threads, idle.tasks)
        and again.statements_s <= idle.statements_s * 1.1 + 1,
        **woken,
    }


def _cost(worker: Worker) -> Cost:
    """Return what a worker costs over a while."""
    window_s = sized(_WINDOW_S, long=_WINDOW_LONG_S)
    stat, statm = (
        Path(f"/proc/{worker.process.pid}/stat"),
        Path(f"/proc/{worker.process.pid}/statm"),
    )
    first, first_cpu, began_s = worker.figures(), _cpu_s(stat), time.monotonic()
    time.sleep(window_s)
    seconds, cpu_s, last = time.monotonic() - began_s, _cpu_s(stat) - first_cpu, worker.figures()
    return Cost(
        mb=int(statm.read_text().split()[1]) * _PAGE / 1e6,
        cpu_percent=100 * cpu_s / seconds,
        statements_s=(last["statements"] - first["statements"]) / seconds,
        threads=last["threads"],
        tasks=last["tasks"],
    )


def _cpu_s(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _parked(interlock: Interlock, workflow: WorkflowName, count: int) -> list[RunId]:
    """Start runs and return when all of them wait."""
    run_ids = plane.begin(interlock, workflow, count)
    deadline_s = time.monotonic() + _ENOUGH_S
    while _busy(interlock):
        if time.monotonic() > deadline_s:
            raise TimeoutError("the runs do not come to wait")
        time.sleep(0.2)
    say(f"{count} runs of `{workflow}` wait")
    return run_ids


def _busy(interlock: Interlock) -> bool:
    with interlock.db.reading() as tx:
        return bool(runs.list_runs(tx, states=(RunState.QUEUED, RunState.RUNNING), limit=1))


def _check_waiting(interlock: Interlock, run_ids: Collection[RunId]) -> None:
    with interlock.db.reading() as tx:
        states = runs.count_by_state(tx)
    if states.get(RunState.WAITING) != len(run_ids) or _busy(interlock):
        raise RuntimeError(f"of {len(run_ids)} waiting runs {states} are left")


def _wakes(interlock: Interlock, by_kind: dict[WorkflowName, list[RunId]]) -> JsonObject:
    """Wake runs of every kind, check that each goes on once, and return the figures."""
    signalled, asked = by_kind[FOR_SIGNAL], by_kind[FOR_APPROVAL]
    singles, rest = signalled[:_SINGLE], signalled[_SINGLE : _SINGLE + _BURST]
    waited_ms = [_signalled(interlock, run_id) for run_id in singles]
    say(f"signalled one by one: {median(waited_ms):.0f} ms to go on")
    began_s = time.monotonic()
    _at_once(lambda run_id: _send(interlock, run_id), rest)
    _check_once(interlock, rest)
    burst_s = time.monotonic() - began_s
    say(f"{len(rest)} signalled at once: all have ended after {burst_s:.1f} s")
    _at_once(lambda run_id: _approve(interlock, run_id), asked[:_BURST])
    _check_once(interlock, asked[:_BURST])
    late_s = _fired(interlock, by_kind[FOR_MOMENT])
    say(f"{len(by_kind[FOR_MOMENT])} times came, at most {late_s:.2f} s late")
    cancelled = by_kind[FOR_TIME][:_BURST]
    for run_id in cancelled:
        interlock.cancel_run(run_id)
    found = plane.ended(interlock, cancelled, timeout_s=_ENOUGH_S)
    if {run.state for run in found} != {RunState.CANCELLED}:
        raise RuntimeError("a run that was cancelled ended in another way")
    _race(interlock)
    return {
        "wake_ms": round(median(waited_ms), 1),
        "burst_s": round(burst_s, 1),
        "burst": len(rest),
        "late_s": round(late_s, 2),
    }


def _at_once(do: Callable[[RunId], object], run_ids: Sequence[RunId]) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(do, run_ids))


def _send(interlock: Interlock, run_id: RunId) -> int:
    """Signal a run and return when, by the database's time."""

    def send(tx: Tx) -> int:
        interlock.dispatch.signal(tx, run_id, "go", "on", dedupe_key="go")
        return tx.now_us

    return interlock.db.run("proof.signal", send)


def _signalled(interlock: Interlock, run_id: RunId) -> float:
    """Return how many ms after its signal a run had taken it and gone on."""
    sent_us = _send(interlock, run_id)
    _check_once(interlock, [run_id])
    with interlock.db.reading() as tx:
        entry = journal.load(tx, run_id)[StepName("hold/wait")]
    return (entry.at_us - sent_us) / 1000


def _approve(interlock: Interlock, run_id: RunId) -> None:
    with interlock.db.reading() as tx:
        called = effects.list_for_run(tx, run_id)
        (asked,) = approvals.list_for_effect(tx, called[-1].effect_id)
    approve.answer(
        interlock.db,
        interlock.dispatch,
        asked.approval_id,
        by=plane.MARA,
        answer="approve",
        digest=asked.digest,
    )


def _check_once(interlock: Interlock, run_ids: Sequence[RunId]) -> None:
    """Return when the runs have succeeded, each after exactly one wait."""
    found = plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S)
    plane.check_succeeded(found)
    if {run.segment for run in found} != {1}:
        raise RuntimeError("a run went on more than once")


def _fired(interlock: Interlock, run_ids: Sequence[RunId]) -> float:
    """Return by how many seconds the latest of these runs noticed that its time had come."""
    plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S)
    late_us: list[int] = []
    for run_id in run_ids:
        with interlock.db.reading() as tx:
            entries = journal.load(tx, run_id)
        begun = entries[StepName("hold#begin")].value
        # INVARIANT: the beginning of a step is recorded as an object with its time.
        assert isinstance(begun, dict)
        due_us = int(str(begun["at_us"])) + plane.MOMENT_S * 1_000_000
        late_us.append(entries[StepName("hold/wait")].at_us - due_us)
    return max(late_us) / 1e6


def _race(interlock: Interlock) -> None:
    """Signal runs while they come to their wait: no signal is lost, none counts twice."""
    run_ids = plane.begin(interlock, FOR_SIGNAL, _BURST)
    _at_once(lambda run_id: _send(interlock, run_id), run_ids)
    plane.check_succeeded(plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S))
