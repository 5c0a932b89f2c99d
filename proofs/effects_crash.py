"""Killed at every named point, a call of each class is done as its class promises.

For both databases and each class a call is first watched, to see which points it reaches: as it is,
with its answer lost, taken over from a dead worker, refused, and approved by people; then runs that
undo what they did, and undos of ended runs. Then a worker kills itself with signal 9 at each of
these points, one point a life; the next one goes on. In the end the ledger is compared with the
record of the tool server. A point that the source names, and that no life ended at, fails the
claim.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from interlock.app import Interlock
from interlock.domain.effect import EffectState
from interlock.domain.ids import WorkflowName
from interlock.domain.record import to_json
from interlock.domain.run import RunState
from interlock.store.engine import Database
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import CLASSES, TOOL_OF, WORKFLOW_OF, files
from proofs.crash_worker import OPS, Job, Plan, settings, work
from proofs.invariants import CALLS_FILE, CHECKED, UNCHECKED, Ledger, compare, export
from proofs.points import points
from proofs.undo_project import UNDO_ENDED, UNDO_FAILED, UNDO_OF, with_undo
from proofs.verdict import Verdict, say
from proofs.workers import run_worker
from scripts import postgres

LEAST = 60
LANES = (("probed", "undo"), ("read", "keyed"), ("conditional", "blind"))
"""What is proved at the same time, each in an installation of its own: a life mostly waits."""
LIMIT_S = 360.0
TIMEOUT_S = 1.0
LAG_S = 0.1
DECLARED_LAG_S = 1.5
TIMED, TIMED_S = WorkflowName("wait_for_time"), 4
"""A run that waits for longer than a wait is held in memory, and is woken by the time."""
IN_EACH_CLASS = frozenset(
    f"{name}.{when}"
    for name in ("call.intent", "send", "call.outcome", "call.takeover")
    for when in ("before", "after")
) | {"reply.read"}
_FAULT_AT = {
    "read": ("GET", "/read"),
    "keyed": ("POST", "/keyed"),
    "conditional": ("POST", "/conditional/links/"),
    "probed": ("POST", "/probed"),
    "blind": ("POST", "/blind"),
}
_STEPS = "durable steps and children; tests/acceptance/test_durable_crash.py kills there"
_PLANS = "a plan as a whole; tests/acceptance/test_plan_crash.py kills there"
_TOKENS = "about the token of a session; no call moves"
_UPSTREAMS = "compares what servers say with what was reviewed; no call waits for it"
_LATE = "a worker of another host that was not seen to end; see tests/runtime/test_recheck.py"
_GATES = "no workflow here has gates; tests/conformance/test_durable_gates.py takes them over"
_RETENTION = "deletes what has ended; the next leader goes on where it stopped"
_VERSIONS = "a run that no worker here can run; tests/conformance/test_durable_versions.py"
_MODEL = "a model request is no tool call"
_WISH = "a person's wish about a run, not a call's"
_CLOCKED = "reached by the time of day, not by a call"
UNDO, UNDO_LATE = "undo of a failed run", "undo of an ended run"
IN_UNDO = frozenset(
    f"{name}.{when}"
    for name in ("step.failed", "run.compensate", "undo.begin", "run.finish")
    for when in ("before", "after")
) | {
    f"{point} {tool}"
    for effect_class, tool in UNDO_OF.items()
    for point in (IN_EACH_CLASS if effect_class == "keyed" else ("call.intent.after", "send.after"))
}
"""Points of a run that fails and undoes what it did; in full of one undo, which is not the last."""
IN_UNDO_LATE = frozenset(
    {
        "trigger.accept.before",
        "trigger.accept.after",
        "undo.begin.before",
        "undo.begin.after",
        f"send.before {UNDO_OF['probed']}",
        f"send.after {UNDO_OF['keyed']}",
        "run.finish.before",
        "run.finish.after",
    }
)
ELSEWHERE = {
    "breaker.change": "a server that fails; see tests/acceptance/test_c12_server_fails.py",
    "call.late": "only a worker that was stopped hears too late; on one host it is killed before",
    "gate.ask": _GATES,
    "gate.leave": _GATES,
    "journal.put_away": "a long session; all of it is done by one transaction",
    "kill.lift": _WISH,
    "kill.set": _WISH,
    "lease.renew": _CLOCKED,
    "model.failed": _MODEL,
    "model.intent": _MODEL,
    "model.outcome": _MODEL,
    "model.stopped": _MODEL,
    "now": _STEPS,
    "plan.answer": _PLANS,
    "plan.check": _PLANS,
    "plan.end": _PLANS,
    "call.recheck": _LATE,
    "call.rechecked": _LATE,
    "retention.begin": _RETENTION,
    "retention.delete": _RETENTION,
    "retention.lead": _RETENTION,
    "retry": _STEPS,
    "run.cancel": _WISH,
    "run.hand_back": "a worker that ends in order",
    "run.hint": "renews the hint of a run that has lost it",
    "run.pause": _WISH,
    "run.signal": _WISH,
    "run.start": _STEPS,
    "run.version": _VERSIONS,
    "run.wake": _VERSIONS,
    "step": _STEPS,
    "token.catch_up": _TOKENS,
    "token.refresh": _TOKENS,
    "token.revoke": _TOKENS,
    "trigger.pause": _CLOCKED,
    "trigger.tick": _CLOCKED,
    "upstream.check": _UPSTREAMS,
    "upstream.lead": _UPSTREAMS,
    "uuid": _STEPS,
}
"""Transactions that are on no call's road, and why. They are killed too if a call meets them."""


@dataclass(slots=True, kw_only=True)
class Lives:
    """One installation through the lives and deaths of its workers."""

    folder: Path
    url: str
    recorder: Recorder
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    keys: int = 0
    open: tuple[Job, ...] = ()

    def job(self, effect_class: str, scenario: str, *, point: str = "") -> Job:
        """Return a job with a key of its own."""
        self.keys += 1
        method, path = _FAULT_AT[effect_class]
        kind = WORKFLOW_OF[effect_class]
        fault = None
        if scenario == "lost":
            fault = Fault(kind="reset", method=method, path=path)
        elif scenario == "refused":
            fault = Fault(kind="refuse", method=method, path=path)
        elif scenario in {"approved", "rejected"}:
            kind = f"ask_{effect_class}"
        elif scenario == "timed":
            kind = TIMED
        return Job(
            workflow=WorkflowName(kind),
            key=f"{effect_class} {self.keys} {scenario} {point}",
            point=point,
            fault=fault,
            is_approved=scenario != "rejected",
        )

    def undo_job(self, workflow: WorkflowName, *, point: str) -> Job:
        """Return a job that undoes: a failed run by itself and, in vain, again; or an ended one."""
        self.keys += 1
        return Job(
            workflow=workflow,
            key=f"{workflow} {self.keys} {point}",
            point=point,
            undo=True,
            is_late=workflow == UNDO_ENDED,
        )

    def live(self, effect_class: str, *jobs: Job, armed: str = "") -> int:
        """Finish what is open and do the jobs; return at which of them the worker died.

        0 is before the first, one more than there are jobs is the end.
        """
        plan = Plan(recorder_port=self.recorder.port, finish=self.open, start=jobs)
        (self.folder / "plan.json").write_text(json.dumps(to_json(plan)))
        if armed:
            (self.folder / "crash").write_text(armed)
        code = run_worker(
            work, str(self.folder), self.url, preloaded=["proofs.crash_worker"], timeout_s=120
        )
        at = int((self.folder / "at").read_text())
        if code == -signal.SIGKILL and at == 0:
            self.killed[effect_class, armed] += 1
        elif code == -signal.SIGKILL:
            self.killed[effect_class, jobs[at - 1].point] += 1
            self.open = (jobs[at - 1],)
        elif code != 0:
            raise RuntimeError(f"a worker ended with `{code}` at job {at}; its log is above")
        else:
            self.open = ()
        return at

    def seen(self, number: int) -> list[str]:
        """Return the points that a job of the last life reached, in order, each once."""
        found: list[str] = json.loads((self.folder / f"seen.{number}.json").read_text())
        return list(dict.fromkeys(point.partition(" ")[0] for point in found))

    def die_at_each(self, effect_class: str) -> None:
        """Watch one call of each kind, then die at each point that one of them reached."""
        scenarios = _scenarios(effect_class)
        watched = [self.job(effect_class, scenario) for scenario in scenarios]
        # A probe that finds nothing waits for quiet, which one that finds something never does.
        first = "send.before" if effect_class == "probed" else "send.after"
        last = self.job(effect_class, "plain", point=first)
        self.live(effect_class, *watched, last)
        done = {first}
        jobs: list[Job] = []
        for number, scenario in enumerate(scenarios, start=1):
            for point in self.seen(number):
                if point not in done:
                    done.add(point)
                    jobs.append(self.job(effect_class, scenario, point=point))
        self.live(effect_class)
        recovering = [point for point in self.seen(0) if point not in done]
        self._die_at(effect_class, jobs)
        self._die_recovering(effect_class, recovering, first=first)
        self.live(effect_class)

    def die_undoing(self) -> None:
        """Die at the points of an undo: of a failed run, of its takeover, of an ended run."""
        points = sorted(IN_UNDO - {f"{t} {UNDO_OF['keyed']}" for t in _TAKEOVER})
        jobs = [self.undo_job(UNDO_FAILED, point=point) for point in points]
        self._die_at(UNDO, jobs)
        late = [self.undo_job(UNDO_ENDED, point=point) for point in sorted(IN_UNDO_LATE)]
        self._die_at(UNDO_LATE, late)
        for point in (f"{point} {UNDO_OF['keyed']}" for point in _TAKEOVER):
            self.live(UNDO, self.undo_job(UNDO_FAILED, point=f"send.after {UNDO_OF['keyed']}"))
            if not self._dies_at(UNDO, point):
                self.missed.append(point)
        self.live(UNDO)

    def _die_at(self, effect_class: str, jobs: list[Job]) -> None:
        """Die at the point of each job; a call may take another way, so that some are done anew."""
        for _ in range(_TRIES):
            missed: list[Job] = []
            while jobs:
                at = self.live(effect_class, *jobs)
                missed += jobs[: at - 1]
                jobs = jobs[at:]
            self.keys += len(missed)
            jobs = [replace(job, key=f"{job.key} again") for job in missed]
        self.keys -= len(jobs)
        self.missed += [job.point for job in jobs]

    def _die_recovering(self, effect_class: str, recovering: list[str], *, first: str) -> None:
        """Die at each point while a call is taken over, at as many as one call has."""
        for point in recovering:
            if self.open and not point.startswith("call.") and self._dies_at(effect_class, point):
                continue
            self.live(effect_class, self.job(effect_class, "taken over", point=first))
            if not self._dies_at(effect_class, point):
                self.missed.append(point)

    def _dies_at(self, effect_class: str, point: str) -> bool:
        return self.live(effect_class, armed=point) == 0


_TRIES = 3
_TAKEOVER = ("call.takeover.before", "call.takeover.after")


def _scenarios(effect_class: str) -> tuple[str, ...]:
    if effect_class == "blind":
        return "plain", "lost", "refused", "approved", "rejected"
    return "plain", "lost", *{"keyed": ("approved",), "read": ("timed",)}.get(effect_class, ())


def main() -> Verdict:
    """Go through the lives on both databases at the same time, in lanes, one worker each."""
    began_s = time.monotonic()
    with ExitStack() as world:
        place = Path(world.enter_context(tempfile.TemporaryDirectory()))
        server = world.enter_context(postgres.running_server())
        installed = [
            (name, lane, world.enter_context(_installed(place / f"{name}.{lane[0]}", url)))
            for lane in LANES
            for name, url in (("sqlite", "sqlite"), ("postgres", server.create_database()))
        ]
        pool = world.enter_context(ThreadPoolExecutor(len(installed)))
        proofs = [pool.submit(prove, name, lane, lives) for name, lane, lives in installed]
        wait(proofs, return_when=FIRST_EXCEPTION)
        found: dict[str, Found] = {}
        for (name, *_), proof in zip(installed, proofs, strict=True):
            one = proof.result()
            found[name] = found[name].and_of(one) if name in found else one
    return judge(found, named=points(), seconds=time.monotonic() - began_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one database, or a lane of it: who died where, and every breach."""

    killed: dict[tuple[str, str], int]
    missed: tuple[str, ...]
    breaches: tuple[str, ...]
    effects: int
    undone: int = 0

    def and_of(self, other: Found) -> Found:
        """Return what came of this lane and of another, which died of other calls."""
        return Found(
            killed=self.killed | other.killed,
            missed=self.missed + other.missed,
            breaches=self.breaches + other.breaches,
            effects=self.effects + other.effects,
            undone=self.undone + other.undone,
        )


def prove(name: str, lane: tuple[str, ...], lives: Lives) -> Found:
    """Go through the lives of a lane on one database and compare."""
    for effect_class in lane:
        if effect_class == "undo":
            lives.die_undoing()
            deaths = sum(n for (of, _), n in lives.killed.items() if of in {UNDO, UNDO_LATE})
            say(f"{name}: undo: {deaths} deaths")
            continue
        lives.die_at_each(effect_class)
        deaths = sum(n for (of, _), n in lives.killed.items() if of == effect_class)
        say(f"{name}: {effect_class}: {deaths} deaths")
    db = Database(settings(lives.folder, lives.url).store_url)
    with db.reading() as tx:
        ledger = export(tx)
    db.close()
    breaches = compare(ledger, lives.recorder.log(), triggers=())
    return Found(
        killed=dict(lives.killed),
        missed=tuple(lives.missed),
        breaches=(*breaches, *_unfinished(ledger, lives.keys), *_left(ledger)),
        effects=len(ledger.effects),
        undone=sum(e.state is EffectState.COMPENSATED for e in ledger.effects),
    )


@contextmanager
def _installed(folder: Path, url: str) -> Iterator[Lives]:
    """Apply the project of the recording tool server, whose calls may also be asked for."""
    folder.mkdir()
    with Recorder(folder, lag_s=LAG_S) as recorder:
        texts = files(recorder.url, timeout_s=TIMEOUT_S) | {"budgets/calls.yaml": CALLS_FILE}
        asked = files(recorder.url, approve=True, timeout_s=TIMEOUT_S)
        for effect_class in CLASSES:
            text = asked[f"workflows/call_{effect_class}.yaml"]
            renamed = text.replace(f"name: call_{effect_class}", f"name: ask_{effect_class}")
            texts[f"workflows/ask_{effect_class}.yaml"] = renamed
        texts = with_undo(texts)
        timed = texts["workflows/call_read.yaml"].replace("call_read", TIMED)
        wait_step = f"  - {{name: call, wait: nobody, timeout_s: {TIMED_S}}}"
        lines = [wait_step if "{name: call" in line else line for line in timed.splitlines()]
        texts[f"workflows/{TIMED}.yaml"] = "\n".join(lines)
        probed = f"tools/{TOOL_OF['probed']}.yaml"
        texts[probed] = texts[probed].replace(f"lag_s: {LAG_S}", f"lag_s: {DECLARED_LAG_S}")
        interlock = Interlock.open(settings(folder, url))
        interlock.apply(texts, by=OPS, diff=None)
        interlock.close()
        yield Lives(folder=folder, url=url, recorder=recorder)


def _unfinished(ledger: Ledger, started: int) -> Iterator[str]:
    """Each run has ended, here where every question is answered."""
    roots = [run for run in ledger.runs if run.request.parent_id is None]
    if len(roots) != started:
        yield f"I5: {started} runs were started and there are {len(roots)}"
    for run in ledger.runs:
        if run.state not in {RunState.SUCCEEDED, RunState.FAILED}:
            yield f"I5: the run of `{run.request.trigger.key}` is `{run.state}` in the end"


def _left(ledger: Ledger) -> Iterator[str]:
    """Nothing that had to be undone stands: an undo that is forgotten breaks no other rule."""
    undone = {r.run_id for r in ledger.runs if r.request.workflow in {UNDO_FAILED, UNDO_ENDED}}
    creates = {TOOL_OF[effect_class] for effect_class in UNDO_OF}
    for effect in ledger.effects:
        is_meant = effect.run_id in undone and effect.tool in creates
        if is_meant and effect.state is not EffectState.COMPENSATED:
            yield f"I9: the effect `{effect.effect_id}` of `{effect.tool}` is `{effect.state}`"


def _transaction(point: str) -> str:
    return point.partition(" ")[0].removesuffix(".before").removesuffix(".after")


def judge(found: dict[str, Found], *, named: Collection[str], seconds: float) -> Verdict:
    """Say whether every named point was died at, on both databases, and nothing was broken."""
    on_the_road = {point for point in named if _transaction(point) not in ELSEWHERE}
    unvisited: list[str] = []
    for name, one in found.items():
        dead = {point.partition(" ")[0] for _, point in one.killed}
        unvisited += [f"{name}: {point}" for point in sorted(on_the_road - dead)]
        unvisited += [
            f"{name}: {point} ({effect_class})"
            for effect_class in CLASSES
            for point in sorted(IN_EACH_CLASS & on_the_road)
            if (effect_class, point) not in one.killed
        ]
        unvisited += [
            f"{name}: {point} ({of})"
            for of, wanted in ((UNDO, IN_UNDO), (UNDO_LATE, IN_UNDO_LATE))
            for point in sorted(wanted)
            if (of, point) not in one.killed
        ]
    breaches = [f"{name}: {text}" for name, one in found.items() for text in one.breaches]
    visited = sum(len(one.killed) for one in found.values())
    return Verdict(
        value={"points": visited, "breaches": len(breaches), "unvisited": len(unvisited)},
        goal={"points": LEAST, "breaches": 0, "unvisited": 0, "seconds": LIMIT_S},
        holds=not breaches and not unvisited and visited >= LEAST and seconds <= LIMIT_S,
        figures={
            "kills": sum(sum(one.killed.values()) for one in found.values()),
            "names": len(on_the_road),
            "effects": sum(one.effects for one in found.values()),
            "undone": sum(one.undone for one in found.values()),
            "breaches": list(breaches[:20]),
            "unvisited": list(unvisited),
            "checked": list(CHECKED),
            "unchecked": UNCHECKED,
            "elsewhere": dict(ELSEWHERE),
        },
    )
