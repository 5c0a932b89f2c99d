"""A worker of the crash proof: finishes what the last one left, then dies where its plan says.

The folder holds `plan.json`, and `crash` if a point is armed from the start. The worker leaves `at`
(which job it is at) and `seen.N.json`: the points that its N-th job reached, 0 what it finished.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from interlock.app import Interlock
from interlock.calls import approve, reconcile
from interlock.config import Config
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.record import from_json
from interlock.domain.run import Run, RunState
from interlock.store import approvals, effects
from interlock.store.engine import CrashPoints
from interlock.testing.recorder import Fault, Recorder

OPS = Principal(name="ops", kind=PrincipalKind.USER, roles=frozenset({Role.OWNER, Role.OPERATOR}))
MARA = Principal(
    name="mara",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER}),
    groups=frozenset({"data-owners"}),
)
LIMIT_S = 30.0
_ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.DEAD_LETTERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: its workflow and key, the fault that it meets, the point at which its worker dies.

    The point may name a tool behind it. `is_approved` is what people say, if they are asked. With
    `undo` the ended run is undone by a run of its own, and `is_late` arms the point only then.
    """

    workflow: WorkflowName
    key: str
    point: str = ""
    fault: Fault | None = None
    is_approved: bool = True
    undo: bool = False
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one worker does: finish these, then start those in their order."""

    recorder_port: int
    finish: tuple[Job, ...] = ()
    start: tuple[Job, ...] = ()


class Traced(CrashPoints):
    """Crash points that also remember which of them were reached."""

    seen: list[str]

    def reach(self, name: str, *, tool: str | None = None) -> None:
        """Note the point and its tool, then die if it is armed."""
        self.seen.append(name if tool is None else f"{name} {tool}")
        super().reach(name, tool=tool)


class Desk:
    """An installation, the people who answer its runs, and the tool server's record."""

    def __init__(self, interlock: Interlock, recorder: Recorder) -> None:
        self.interlock = interlock
        self.recorder = recorder

    def finish(self, job: Job, arm: Callable[[], None] = lambda: None) -> None:
        """Start the run unless it is there, and see it to its end; undo it if that is the job."""
        if not job.is_late:
            arm()
        run_id, _ = self.interlock.start_run(
            job.workflow, environment="dev", value={"text": job.key}, by=OPS, key=job.key
        )
        ended = self._see_out(run_id, job)
        if job.is_late:
            arm()
        if job.undo and ended is not None:
            undo_id, _ = self.interlock.compensate_run(ended, by=OPS)
            self._see_out(undo_id, job)

    def _see_out(self, run_id: RunId, job: Job) -> Run | None:
        """Return a run when it has ended, None if it takes too long; people answer what it asks."""
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s:
            states = (*_ENDED, RunState.WAITING)
            run = self.interlock.wait_for(run_id, *states, timeout_s=LIMIT_S)
            if run.state in _ENDED:
                return run
            self.answer(run_id, is_approved=job.is_approved)
            time.sleep(0.02)
        return None

    def answer(self, run_id: RunId, *, is_approved: bool) -> None:
        """Answer what a run asks people, and settle its effects as the record says."""
        plane = self.interlock
        with plane.db.reading() as tx:
            asked = [a for a in approvals.list_open(tx, tenant=OPS.tenant) if a.run_id == run_id]
            found = effects.list_for_run(tx, run_id)
        for approval in asked:
            approve.answer(
                plane.db,
                plane.dispatch,
                approval.approval_id,
                by=MARA,
                answer="approve" if is_approved else "reject",
                digest=approval.digest,
                reason="so that it is known what a worker does that dies here",
            )
        for effect in (e for e in found if e.state is EffectState.PARKED):
            done = {applied.reference for applied in self.recorder.log().effects}
            try:
                reconcile.settle(
                    plane.db,
                    plane.dispatch,
                    effect.effect_id,
                    by=OPS,
                    answer="done" if effect.effect_id in done else "absent",
                    reason="the record of the tool server says so",
                )
            except ConflictError:
                continue  # settled a moment ago


def settings(folder: Path, url: str) -> Config:
    """Return the settings of the installation in a folder."""
    return Config(
        data_dir=folder / "data",
        database_url=None if url.startswith("sqlite") else url,
        crash_file=folder / "crash",
    )


def work(place: str, url: str) -> None:
    """Do what the plan says; ends by itself, or by the signal of an armed point."""
    # That others died is no news here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = Path(place)
    plan = from_json(Plan, json.loads((folder / "plan.json").read_text()))
    (folder / "at").write_text("0")
    recorder = Recorder(folder)
    recorder.port = plan.recorder_port
    interlock = Interlock.open(settings(folder, url))
    seen = _trace(interlock)
    interlock.start()
    desk = Desk(interlock, recorder)
    for job in plan.finish:
        desk.finish(job)
    (folder / "crash").unlink(missing_ok=True)
    (folder / "seen.0.json").write_text(json.dumps(seen))
    for number, job in enumerate(plan.start, start=1):
        (folder / "at").write_text(str(number))
        seen.clear()
        if job.fault is not None:
            recorder.arm(job.fault)
        desk.finish(job, arm=partial(_arm, folder, job.point))
        (folder / "crash").unlink(missing_ok=True)
        (folder / f"seen.{number}.json").write_text(json.dumps(seen))
    (folder / "at").write_text(str(len(plan.start) + 1))
    interlock.close()


def _arm(folder: Path, point: str) -> None:
    (folder / "armed").write_text(point)
    (folder / "armed").rename(folder / "crash")


def _trace(interlock: Interlock) -> list[str]:
    """Let the points of an installation note what is reached; everyone holds the same object."""
    points = interlock.db.points
    points.__class__ = Traced
    assert isinstance(points, Traced)  # INVARIANT: just made so
    points.seen = []
    return points.seen
