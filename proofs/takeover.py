"""Runs of a dead worker are taken over within 5 s on its host, 30 s from another or after a stop.

Three workers have 50 runs in flight on one Postgres. One is killed, or stopped (it is killed before
it is taken over), or killed in a PID namespace of its own, where only the end of its lease tells of
its death. On two hosts with a network between, one is cut off: it has to leave by itself, before
others take over; or it is also stopped, and wakes when it is back on the network. The time counts
until the dead worker owns no run any more. All runs have to end, each of their calls done once in
the outside world, and nothing may be written for an owner after the next one has begun.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import kill
from pathlib import Path
from statistics import median

from sqlalchemy import make_url

from interlock.app import Interlock
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import RECHECK, RunState
from interlock.store import leases, runs
from proofs import plane, two_hosts
from proofs.invariants import export, in_order_of_epochs
from proofs.plane import Worker
from proofs.two_hosts import Host, Network
from proofs.verdict import Verdict, say, sized
from scripts import postgres

WORKERS = 3
RUNS = 50
AT_ONCE = 20
"""For each worker: two cannot have all runs, so that whichever dies has some."""
SAMPLES, LONG_SAMPLES = 3, 10
CUT_OFF, CUT_AND_STOPPED = "cut off", "cut off and stopped"
GOALS = {
    "killed": 5.0,
    "stopped": 30.0,
    "killed on another host": 30.0,
    CUT_OFF: 30.0,
    CUT_AND_STOPPED: 30.0,
}
_OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_LEFT = 75
"""How a worker exits that finds its lease over."""
_IN_FLIGHT_S = 60.0
_LEAVES_S = 20.0
_ENOUGH_S = 300.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A way to die: what is done to the first of the workers, or the busiest if all are alike.

    `prefixes` say where each worker runs. `revive` is done once its runs are taken over;
    `leaves` if the worker has to end by itself.
    """

    name: str
    prefixes: tuple[tuple[str, ...], ...]
    die: Callable[[Worker], None]
    revive: Callable[[Worker], None] = lambda _worker: None
    leaves: bool = False

    @property
    def is_of_first(self) -> bool:
        """Whether the first worker stands apart."""
        return len(set(self.prefixes)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One death: seconds until the takeover, runs taken, seconds until it had left by itself."""

    seconds: float
    taken: int
    left_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of all deaths: the samples of each kind, and every breach."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)


def main() -> Verdict:
    """Take over after each kind of death, several times; the slowest of each kind counts."""
    plane.quiet()
    absent = two_hosts.why_absent()
    found = Found()
    with ExitStack() as world:
        net = None if absent else world.enter_context(two_hosts.network())
        address = None if net is None else net.address
        database = world.enter_context(postgres.running_server(address=address)).create_database()
        folder = world.enter_context(plane.scratch())
        interlock = world.enter_context(plane.installed(folder, database))
        for death in _deaths(net):
            for _ in range(sized(SAMPLES, long=LONG_SAMPLES)):
                with _workers(folder, database, death, address) as workers:
                    sample = _sample(interlock, workers, death, found.breaches)
                say(f"{death.name}: {sample}")
                found.samples.setdefault(death.name, []).append(sample)
        found.breaches += _not_done_once(interlock, folder)
    return judge(found, absent=absent)


def judge(found: Found, *, absent: str | None) -> Verdict:
    """Say whether every takeover was in time, took something, and doubled nothing."""
    worst = {name: max(one.seconds for one in of) for name, of in found.samples.items()}
    breaches = list(found.breaches)
    figures: JsonObject = {}
    for name, of in found.samples.items():
        breaches += [f"{name}: no run was taken over" for one in of if one.taken == 0]
        figures[name] = {
            "median_s": round(median(one.seconds for one in of), 1),
            "worst_s": round(worst[name], 1),
            "samples": len(of),
            "runs": [one.taken for one in of],
        }
        left = [one.left_s for one in of if one.left_s is not None]
        if name == CUT_OFF:
            breaches += [
                f"{name}: it left after {one.left_s} s and was taken over after {one.seconds} s"
                for one in of
                if one.left_s is None or one.left_s > one.seconds
            ]
            if left:
                figures["fenced itself"] = {
                    "median_s": round(median(left), 1),
                    "worst_s": round(max(left), 1),
                }
    two = f"absent: {absent}" if absent else "present"
    return Verdict(
        value={**{name: round(one, 1) for name, one in worst.items()}, "breaches": len(breaches)},
        goal={**{name: GOALS[name] for name in worst}, "breaches": 0},
        holds=bool(worst)
        and not breaches
        and all(seconds <= GOALS[name] for name, seconds in worst.items()),
        figures=figures
        | {"two_hosts": two, "runs_each": RUNS, "breaches_found": list(breaches[:20])},
    )


def _deaths(net: Network | None) -> Iterator[Death]:
    here: tuple[tuple[str, ...], ...] = ((),) * WORKERS
    yield Death(name="killed", prefixes=here, die=Worker.kill)
    yield Death(name="stopped", prefixes=here, die=_stop)
    has_pids = subprocess.run([*_OWN_PIDS, "true"], capture_output=True, check=False)
    if has_pids.returncode == 0:
        apart = (_OWN_PIDS,) * WORKERS
        yield Death(name="killed on another host", prefixes=apart, die=Worker.kill)
    if net is not None:
        first, second = net.hosts
        prefixes = (first.prefix, *(second.prefix,) * (WORKERS - 1))
        yield Death(
            name=CUT_OFF,
            prefixes=prefixes,
            die=lambda _worker: first.cut(),
            revive=lambda _worker: first.join(),
            leaves=True,
        )
        yield Death(
            name=CUT_AND_STOPPED,
            prefixes=prefixes,
            die=lambda worker: _cut_and_stop(first, worker),
            revive=lambda worker: _join_and_wake(first, worker),
            leaves=True,
        )


@contextmanager
def _workers(
    folder: Path, database: str, death: Death, address: str | None
) -> Iterator[list[Worker]]:
    """Have workers serve where the death wants them; those still there are killed at the end."""
    url = database
    if death.is_of_first:
        url = make_url(database).set(host=address).render_as_string(hide_password=False)
    found = [Worker(folder, url, at_once=AT_ONCE, prefix=prefix) for prefix in death.prefixes]
    try:
        for worker in found:
            worker.ready()
        yield found
    finally:
        for worker in found:
            worker.kill()


def _sample(
    interlock: Interlock, workers: list[Worker], death: Death, breaches: list[str]
) -> Sample:
    """Let a worker die; return the seconds to its takeover and how many runs it had."""
    run_ids = plane.begin(interlock, plane.FIVE_POSTS, RUNS)
    _wait_for_flight(interlock, run_ids)
    busiest = max(workers, key=lambda worker: len(_owned(interlock, worker)))
    victim = workers[0] if death.is_of_first else busiest
    taken = len(_owned(interlock, victim))
    began_s = time.monotonic()
    left_s: float | None = None
    death.die(victim)
    try:
        while not _is_taken_over(interlock, victim):
            if left_s is None and death.leaves and victim.process.poll() is not None:
                left_s = time.monotonic() - began_s
            if time.monotonic() - began_s > _ENOUGH_S:
                raise TimeoutError("nobody took over the runs of the dead worker")
            time.sleep(_LOOK_S)
        seconds = time.monotonic() - began_s
    finally:
        death.revive(victim)
    if death.leaves:
        code = victim.process.wait(_LEAVES_S)
        left_s = time.monotonic() - began_s if left_s is None else left_s
        if code != _LEFT:
            breaches.append(f"{death.name}: the worker ended with `{code}`")
    plane.check_succeeded(plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S))
    return Sample(seconds=seconds, taken=taken, left_s=left_s)


def _stop(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGSTOP)


def _cut_and_stop(host: Host, worker: Worker) -> None:
    host.cut()
    kill(_inner_pid(worker), signal.SIGSTOP)


def _join_and_wake(host: Host, worker: Worker) -> None:
    host.join()
    kill(_inner_pid(worker), signal.SIGCONT)


def _inner_pid(worker: Worker) -> int:
    """Return the pid here of a worker that was started by a command which waits for it."""
    outer = worker.process.pid
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


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


def _not_done_once(interlock: Interlock, folder: Path) -> Iterator[str]:
    """Yield what the outside world and the ledger say of calls that were not done once."""
    with interlock.db.reading() as tx:
        ledger = export(tx)
    yield from in_order_of_epochs(ledger)
    lines = (folder / plane.OUTSIDE).read_text().split()
    writes = {effect.effect_id: effect for effect in ledger.effects if effect.is_write}
    yield from (f"`{line}` was done and nobody meant to" for line in set(lines) - writes.keys())
    for effect_id, effect in writes.items():
        if effect.state is not EffectState.SUCCEEDED or lines.count(effect_id) != 1:
            yield f"`{effect_id}` is `{effect.state}` and was done {lines.count(effect_id)} times"
    own = [run for run in ledger.runs if run.request.trigger.kind != RECHECK]
    if len(writes) != plane.STEPS * len(own):
        yield f"{len(own)} runs have {len(writes)} calls"
    looks = [run for run in ledger.runs if run.request.trigger.kind == RECHECK]
    for look in looks:
        if look.state.is_final and look.end_state != "confirmed":
            yield f"a second look ended `{look.end_state or look.error_code}`"
