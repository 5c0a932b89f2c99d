"""Random kills, stops, database crashes and lost answers double, lose and misreport no effect.

Two real workers on one Postgres make calls of four classes to the recording tool server, behind a
proxy that loses answers after the effect; some runs fail and undo what they did. Meanwhile workers
are killed with signal 9, or stopped for a while, and Postgres is restarted in immediate mode. The
seed is `SEED`, else drawn. A proof without any of these harms, or without an undo, does not hold.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from interlock.app import Interlock
from interlock.config import Config
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.errors import UnavailableError
from interlock.domain.ids import WorkflowName
from interlock.domain.run import RunState
from interlock.domain.tool import EffectClass
from interlock.store import runs, waits
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, files
from interlock.testing.recording import Record
from proofs.crash_worker import OPS
from proofs.invariants import CALLS_FILE, CHECKED, UNCHECKED, Ledger, compare, export
from proofs.losing_proxy import losing_proxy
from proofs.undo_project import UNDO_FAILED, with_steps, with_undo
from proofs.verdict import Verdict, say, sized
from scripts import postgres

EFFECTS, LONG_EFFECTS = 2_000, 10_000
CLASSES = ("keyed", "conditional", "probed", "keyed", "conditional", "blind")
WORKERS = 2
AT_ONCE = 8
UNDER_WAY = 24
LOST_SHARE = 0.02
KILL_SHARE, LONG_STOP_SHARE = 0.5, 0.15
MORE = 1.1
"""So many more calls are made than have to be done: some stay with a person."""
TIMEOUT_S = 2.0
LAG_S = 0.1
BREAKER_OPEN_S = 0.5
QUIET_S = 300.0
WORKFLOW = WorkflowName("call_all")
_ENOUGH = 100_000
_MOVING = (RunState.QUEUED, RunState.RUNNING, RunState.COMPENSATING)
_UNDONE = 8
"""Each so-manyth run fails and undoes its writes."""
_HARMS = ("worker killed", "worker stopped", "postgres crashed", "answers lost")
_AT_LEAST = frozenset({"effects", "undone"})
_AGAIN = 20
"""Each so-manyth trigger is given twice, as by a sender who missed the answer."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """One `interlock worker`, started again whenever it is gone, as a service manager does."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    def keep(self) -> None:
        """Start it unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        env = os.environ | {
            "INTERLOCK_DATA_DIR": str(self.folder),
            "INTERLOCK_DATABASE_URL": self.url,
            "INTERLOCK_CONCURRENCY": str(AT_ONCE),
        }
        command = [str(Path(sys.executable).with_name("interlock")), "worker"]
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.signal(signal.SIGKILL)

    def end(self) -> None:
        """End it in order, also if it was stopped."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.process is not None:
            self.process.wait(60)


@dataclass(slots=True, kw_only=True)
class Nemesis:
    """Does harm at random, from a thread of its own, until it is told to stop."""

    workers: list[Worker]
    server: postgres.Server
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    is_over: threading.Event = field(default_factory=threading.Event)

    def rage(self) -> None:
        """Do one harm after another; a worker that is gone comes back."""
        next_crash_s = time.monotonic() + 8.0
        while not self.is_over.wait(self.draw.uniform(4.0, 9.0)):
            worker = self.draw.choice(self.workers)
            if time.monotonic() > next_crash_s:
                self.done["postgres crashed"] += 1
                self.server.crash()
                next_crash_s = time.monotonic() + self.draw.uniform(15.0, 30.0)
            elif self.draw.random() < KILL_SHARE:
                self.done["worker killed"] += 1
                worker.signal(signal.SIGKILL)
            else:
                self._stop_for_a_while(worker)
            for one in self.workers:
                one.keep()

    def _stop_for_a_while(self, worker: Worker) -> None:
        """Stop a worker, now and then for longer than its lease, so that another takes over."""
        is_long = self.draw.random() < LONG_STOP_SHARE
        self.done["worker stopped past its lease" if is_long else "worker stopped"] += 1
        worker.signal(signal.SIGSTOP)
        self.is_over.wait(25.0 if is_long else self.draw.uniform(0.2, 4.0))
        worker.signal(signal.SIGCONT)


def main() -> Verdict:
    """Start the runs while harm is done, then let everything end, and compare."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    say(f"SEED={seed}")
    wanted = sized(EFFECTS, long=LONG_EFFECTS)
    with ExitStack() as world:
        folder = Path(world.enter_context(tempfile.TemporaryDirectory()))
        server = world.enter_context(postgres.running_server())
        recorder = world.enter_context(Recorder(folder / "recorder", lag_s=LAG_S))
        proxy = world.enter_context(losing_proxy(recorder.port, share=LOST_SHARE, seed=seed))
        url = server.create_database()
        interlock = Interlock.open(Config(data_dir=folder, database_url=url))
        world.callback(interlock.close)
        interlock.apply(_project(proxy.url), by=OPS, diff=None)
        workers = [Worker(folder=folder, url=url) for _ in range(WORKERS)]
        for worker in workers:
            world.callback(worker.kill)
        nemesis = Nemesis(workers=workers, server=server, draw=random.Random(seed))  # noqa: S311
        with _raging(nemesis):
            triggers = _trigger(interlock, round(MORE * wanted / len(CLASSES)))
        say(f"all is started and harm ends: {dict(nemesis.done)}, {proxy.lost} answers lost")
        _wait_until_quiet(interlock, workers)
        for worker in workers:
            worker.end()
        with interlock.db.reading() as tx:
            ledger = export(tx)
        record = recorder.log()
        harm: JsonObject = {"seed": seed, "answers lost": proxy.lost, **nemesis.done}
    return judge(ledger, record, triggers=triggers, wanted=wanted, harm=harm)


@contextmanager
def _raging(nemesis: Nemesis) -> Iterator[None]:
    """Start the workers and harm them until the block ends; all work in order then."""
    for worker in nemesis.workers:
        worker.keep()
    thread = threading.Thread(target=nemesis.rage)
    thread.start()
    try:
        yield
    finally:
        nemesis.is_over.set()
        thread.join()


def _trigger(interlock: Interlock, n_runs: int) -> list[str]:
    """Start the runs, so many at a time; return the keys of the triggers that were accepted."""
    accepted: list[str] = []
    for number in range(n_runs):
        key = f"run {number}"
        workflow = UNDO_FAILED if number % _UNDONE == 0 else WORKFLOW
        for _ in range(1 + (number % _AGAIN == 0)):
            interlock.start_run(workflow, environment="dev", value={"text": key}, by=OPS, key=key)
        accepted.append(key)
        while _under_way(interlock) > UNDER_WAY:
            time.sleep(0.2)
        if number % 50 == 0:
            say(f"{number} of {n_runs} runs are started")
    return accepted


def _under_way(interlock: Interlock) -> int:
    """Count the runs that are queued, running or undoing, or wait for a time."""
    try:
        with interlock.db.reading() as tx:
            counts = runs.count_by_state(tx)
            waiting = runs.list_runs(tx, states=(RunState.WAITING,), limit=_ENOUGH)
            timed = sum(
                any(wait.due_us is not None for wait in waits.list_waits(tx, run.run_id))
                for run in waiting
            )
    except UnavailableError:
        return UNDER_WAY + 1  # the database is being restarted
    return timed + sum(counts.get(state, 0) for state in _MOVING)


def _wait_until_quiet(interlock: Interlock, workers: list[Worker]) -> None:
    """Wait until nothing moves any more, or for as long as anything may take."""
    deadline_s = time.monotonic() + QUIET_S
    while _under_way(interlock) and time.monotonic() < deadline_s:
        for worker in workers:
            worker.keep()
        time.sleep(0.5)
    say(f"{_under_way(interlock)} runs are still under way")


def judge(
    ledger: Ledger, record: Record, *, triggers: list[str], wanted: int, harm: JsonObject
) -> Verdict:
    """Say whether enough was called and nothing doubled, lost or taken for failed."""
    breaches = compare(ledger, record, triggers=triggers)
    calls = [effect for effect in ledger.effects if effect.is_write]
    applied = Counter(done.reference for done in record.effects)
    received = Counter(r.reference for r in record.requests if r.method == "POST" and r.body)
    doubled = Counter(
        effect.effect_class.value for effect in calls if applied[effect.effect_id] > 1
    )
    value = {
        "effects": len(record.effects),
        "doubled": sum(doubled.values()),
        "blind_second_calls": sum(
            received[e.effect_id] > 1 for e in calls if e.effect_class is EffectClass.BLIND
        ),
        "lost_triggers": len(set(triggers) - {r.request.trigger.key for r in ledger.runs}),
        "ambiguous_as_failed": sum(
            e.state is EffectState.FAILED_DEFINITE and applied[e.effect_id] > 0 for e in calls
        ),
        "breaches": len(breaches),
        "harms_not_done": sum(not harm.get(name) for name in _HARMS),
        "undone": sum(e.state is EffectState.COMPENSATED for e in calls),
    }
    goal = dict.fromkeys(value, 0) | {"effects": wanted, "undone": wanted // 100}
    states = Counter(f"{e.effect_class} {e.state}" for e in calls)
    evidence = Counter(e.kind for seen in ledger.evidence.values() for e in seen)
    return Verdict(
        value=dict(value),
        goal=dict(goal),
        holds=all(
            found >= goal[name] if name in _AT_LEAST else found == 0
            for name, found in value.items()
        ),
        figures={
            "triggers": len(triggers),
            "harm": harm,
            "doubled": dict(doubled),
            "states": dict(sorted(states.items())),
            "evidence": dict(sorted(evidence.items())),
            "runs": dict(Counter(run.state.value for run in ledger.runs)),
            "breaches_found": list(breaches[:20]),
            "checked": list(CHECKED),
            "unchecked": UNCHECKED,
        },
    )


def _project(url: str) -> dict[str, str]:
    """Return the project of the recording server with one workflow that calls every class."""
    texts = with_undo(files(url, timeout_s=TIMEOUT_S)) | {"budgets/calls.yaml": CALLS_FILE}
    # A worker that was stopped takes its own silence for the server's.
    texts["servers/recorder-dev.yaml"] += f"breaker_open_s: {BREAKER_OPEN_S}\n"
    text = texts["workflows/call_keyed.yaml"].replace("call_keyed", WORKFLOW)
    called, tools = [TOOL_OF[c] for c in CLASSES], sorted(TOOL_OF.values())
    texts[f"workflows/{WORKFLOW}.yaml"] = with_steps(text, called, tools)
    return texts
