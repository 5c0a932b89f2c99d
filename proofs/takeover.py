"""Runs of a dead worker are taken over within 5 s on its host, 30 s from another or after a stop.

Three workers have 50 runs in flight on one Postgres. One is killed; another time one is stopped,
which is killed before it is taken over; a third time each worker has a PID namespace of its own, as
on a host of its own, so that only the end of the lease tells of its death. The time counts until
the dead worker owns no run any more. All runs have to end, each of its calls once recorded.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import RunState
from interlock.store import effects, leases, runs
from proofs import plane
from proofs.plane import Worker
from proofs.verdict import Verdict, say, sized

WORKERS = 3
RUNS = 50
GOALS = {"killed": 5.0, "stopped": 30.0, "killed on another host": 30.0}
TIMES, TIMES_LONG = 1, 10
_HOST = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_IN_FLIGHT_S = 60.0
_ENOUGH_S = 300.0
_LOOK_S = 0.02


def main() -> Verdict:
    """Take over after each kind of death; the slowest of each kind counts."""
    plane.quiet()
    deaths: dict[str, tuple[Callable[[Worker], None], tuple[str, ...]]] = {
        "killed": (Worker.kill, ()),
        "stopped": (_stop, ()),
    }
    has_namespaces = subprocess.run([*_HOST, "true"], capture_output=True, check=False)
    if has_namespaces.returncode == 0:
        deaths["killed on another host"] = (Worker.kill, _HOST)
    slowest: dict[str, float] = {}
    figures: JsonObject = {}
    with (
        plane.postgres_database() as database,
        plane.scratch() as folder,
        plane.installed(folder, database) as interlock,
    ):
        for name, (die, prefix) in deaths.items():
            for _ in range(sized(TIMES, long=TIMES_LONG)):
                with plane.workers(folder, database, WORKERS, prefix=prefix) as found:
                    seconds, taken = _death(interlock, found, die)
                say(f"{name}: {taken} runs taken over after {seconds:.1f} s")
                slowest[name] = max(seconds, slowest.get(name, 0.0))
                figures[name] = {"seconds": round(slowest[name], 1), "runs": taken}
    for name in GOALS.keys() - deaths.keys():
        figures[name] = "skipped: this machine gives no PID namespaces"
    value: Json = {name: round(seconds, 1) for name, seconds in slowest.items()}
    goal: Json = {name: GOALS[name] for name in slowest}
    holds = all(seconds <= GOALS[name] for name, seconds in slowest.items())
    return Verdict(value=value, goal=goal, holds=holds, figures=figures | {"runs": RUNS})


def _death(
    interlock: Interlock, found: list[Worker], die: Callable[[Worker], None]
) -> tuple[float, int]:
    """Let the busiest worker die; return the seconds to its takeover and how many runs it had."""
    run_ids = plane.begin(interlock, plane.FIVE_PAUSES, RUNS)
    _wait_for_flight(interlock, run_ids)
    victim = max(found, key=lambda worker: len(_owned(interlock, worker)))
    taken = len(_owned(interlock, victim))
    began_s = time.monotonic()
    die(victim)
    while not _is_taken_over(interlock, victim):
        if time.monotonic() - began_s > _ENOUGH_S:
            raise TimeoutError("nobody took over the runs of the dead worker")
        time.sleep(_LOOK_S)
    seconds = time.monotonic() - began_s
    plane.check_succeeded(plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S))
    for run_id in run_ids:
        _check_calls(interlock, run_id)
    return seconds, taken


def _stop(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGSTOP)


def _wait_for_flight(interlock: Interlock, run_ids: list[RunId]) -> None:
    """Return when all runs are owned, or some have ended already; each goes on for a second."""
    deadline_s = time.monotonic() + _IN_FLIGHT_S
    while time.monotonic() < deadline_s:
        with interlock.db.reading() as tx:
            queued = runs.list_runs(tx, states=(RunState.QUEUED,), limit=1)
        if not queued:
            return
        time.sleep(_LOOK_S)
    raise TimeoutError(f"{len(run_ids)} runs are not in flight after {_IN_FLIGHT_S:.0f} s")


def _owned(interlock: Interlock, worker: Worker) -> list[RunId]:
    with interlock.db.reading() as tx:
        owned = leases.owned_runs(tx, ExecutorId(worker.executor_id))
    return [run.run_id for run in owned]


def _is_taken_over(interlock: Interlock, worker: Worker) -> bool:
    """Whether its lease is gone and nothing is its own: then no run waits for it any more."""
    with interlock.db.reading() as tx:
        others = {executor.executor_id for executor in leases.list_executors(tx)}
    return worker.executor_id not in others and not _owned(interlock, worker)


def _check_calls(interlock: Interlock, run_id: RunId) -> None:
    with interlock.db.reading() as tx:
        found = effects.list_for_run(tx, run_id)
    states = [effect.state for effect in found]
    if states != [EffectState.SUCCEEDED] * plane.STEPS:
        raise RuntimeError(f"the calls of a run ended {states}")
