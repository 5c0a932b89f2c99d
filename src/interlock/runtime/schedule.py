"""Cron triggers: one run per tick over all workers, with catch-up, pause and fire by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from zoneinfo import ZoneInfo

import structlog
from cronsim import CronSim

from interlock.domain.canonical import JsonObject, digest
from interlock.domain.clock import from_us, iso, to_us
from interlock.domain.errors import InputError, InterlockError, NotFoundError, UnavailableError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.release import Release
from interlock.domain.run import TriggerRef
from interlock.domain.workflow import Trigger, WorkflowSpec
from interlock.runtime.triggers import Accepted, Intake, input_of, request_of
from interlock.store import triggers
from interlock.store.tx import Tx

MAX_CATCH_UP = 100
ON_TIME_US = 60_000_000
"""With catch-up `none`, a tick found later than this is missed."""
LONGEST_PAUSE_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One nominal time of a schedule; `key` names it, the same on every worker."""

    at_us: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerState:
    """A trigger as people see it; the times are None for what is not a schedule."""

    workflow: WorkflowName
    trigger: Trigger
    is_paused: bool = False
    last_us: int | None = None
    next_us: int | None = None


def ticks(trigger: Trigger, *, after_us: int) -> Iterator[Tick]:
    """Yield the ticks of a schedule after an instant, without end.

    With fixed hours a tick is named by its wall time, so an hour that clocks repeat fires once; a
    time that clocks skip comes at the next valid instant. With a wildcard hour it is named by UTC.
    """
    expression = trigger.schedule or ""
    zone = ZoneInfo(trigger.timezone)
    has_fixed_hours = not expression.split()[1].startswith("*")
    for moment in CronSim(expression, from_us(after_us).astimezone(zone)):
        at_us = to_us(moment)
        wall = moment.astimezone(zone).replace(tzinfo=None).isoformat()
        yield Tick(at_us=at_us, key=wall if has_fixed_hours else iso(at_us))


def fire_due(intake: Intake) -> list[RunId]:
    """Start the runs of every tick that is due by database time; return those that are new.

    Safe on many workers at once: the tick's key decides. One schedule that fails does not stop
    the others; its tick is dropped and logged.
    """
    with intake.db.reading() as tx:
        release = intake.live.at(tx).release
    started: list[RunId] = []
    for spec, trigger in _schedules(release):
        try:
            started += intake.db.run(
                "trigger.tick", partial(_fire, intake, release=release, spec=spec, trigger=trigger)
            )
        except UnavailableError:
            raise
        except InterlockError as error:
            _log.error("trigger.failed", workflow=spec.name, trigger=trigger.name, code=error.code)
            intake.db.run("trigger.tick", partial(_skip, spec=spec, trigger=trigger))
    return started


def fire(
    intake: Intake, workflow: WorkflowName, name: str, *, by: str, key: str | None = None
) -> Accepted:
    """Start a run of a schedule now, whether it is paused or not; its key is its own."""

    def start(tx: Tx) -> Accepted:
        release = intake.live.at(tx).release
        spec, trigger = _find(release, workflow, name)
        tick = Tick(at_us=tx.now_us, key=f"fire:{by}:{key or tx.new_id()}")
        run_id, is_new = _start(
            intake, tx, release=release, spec=spec, trigger=trigger, tick=tick, user=by
        )
        return Accepted(run_id=run_id, is_new=is_new, workflow=workflow, trigger=name)

    return intake.db.run("trigger.accept", start)


def set_paused(intake: Intake, workflow: WorkflowName, name: str, *, is_paused: bool) -> None:
    """Pause a schedule or let it go on; ticks that fall into a pause are never made up for."""

    def write(tx: Tx) -> None:
        _find(intake.live.at(tx).release, workflow, name)
        triggers.put_schedule(tx, workflow, name, is_paused=is_paused, last_tick_us=tx.now_us)

    intake.db.run("trigger.pause", write)


def overview(tx: Tx, release: Release) -> tuple[TriggerState, ...]:
    """Return every trigger of a release, by workflow and in the order declared."""
    rows = {(row.workflow, row.trigger): row for row in triggers.list_schedules(tx)}
    states: list[TriggerState] = []
    for _, spec in sorted(release.workflows.items()):
        for trigger in spec.triggers:
            row = rows.get((spec.name, trigger.name))
            is_paused = trigger.is_paused if row is None else row.is_paused
            next_us = None
            if trigger.kind == "cron" and not is_paused:
                next_us = next(ticks(trigger, after_us=tx.now_us)).at_us
            states.append(
                TriggerState(
                    workflow=spec.name,
                    trigger=trigger,
                    is_paused=is_paused,
                    last_us=None if row is None else row.last_tick_us,
                    next_us=next_us,
                )
            )
    return tuple(states)


class ScheduleLoop:
    """A thread that fires what is due and sleeps until the next tick, at most 5 s."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interlock-schedule", daemon=True)

    def start(self) -> None:
        """Start firing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a tick that is being fired is finished first."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            try:
                fire_due(self._intake)
                pause_s = self._until_next_s()
            except UnavailableError as error:
                _log.warning("schedule.unavailable", reason=error.message)
                pause_s = LONGEST_PAUSE_S
            except Exception:  # noqa: BLE001  # the ticks of the others must go on
                _log.exception("schedule.failed")
                pause_s = LONGEST_PAUSE_S

    def _until_next_s(self) -> float:
        with self._intake.db.reading() as tx:
            states = overview(tx, self._intake.live.at(tx).release)
            due = [state.next_us for state in states if state.next_us is not None]
            return min([LONGEST_PAUSE_S, *((at_us - tx.now_us) / 1_000_000 for at_us in due)])


def _fire(
    intake: Intake, tx: Tx, *, release: Release, spec: WorkflowSpec, trigger: Trigger
) -> list[RunId]:
    row = triggers.lock_schedule(tx, spec.name, trigger.name, is_paused=trigger.is_paused)
    due = _due(trigger, after_us=row.last_tick_us, now_us=tx.now_us)
    if not due:
        return []
    triggers.put_schedule(
        tx, spec.name, trigger.name, is_paused=row.is_paused, last_tick_us=due[-1].at_us
    )
    chosen = [] if row.is_paused else _chosen(trigger, due, now_us=tx.now_us)
    start = partial(_start, intake, tx, release=release, spec=spec, trigger=trigger)
    started = [start(tick=tick) for tick in chosen]
    return [run_id for run_id, is_new in started if is_new]


def _skip(tx: Tx, *, spec: WorkflowSpec, trigger: Trigger) -> None:
    row = triggers.lock_schedule(tx, spec.name, trigger.name, is_paused=trigger.is_paused)
    triggers.put_schedule(
        tx, spec.name, trigger.name, is_paused=row.is_paused, last_tick_us=tx.now_us
    )


def _due(trigger: Trigger, *, after_us: int, now_us: int) -> list[Tick]:
    """Return the due ticks, of very many the newest `MAX_CATCH_UP`."""
    due: list[Tick] = []
    for tick in ticks(trigger, after_us=after_us):
        if tick.at_us > now_us:
            break
        due.append(tick)
        del due[:-MAX_CATCH_UP]
    return due


def _chosen(trigger: Trigger, due: list[Tick], *, now_us: int) -> list[Tick]:
    if trigger.catch_up == "all":
        return due
    last = due[-1:]
    if trigger.catch_up == "none" and now_us - last[0].at_us > ON_TIME_US:
        return []
    return last


def _start(
    intake: Intake,
    tx: Tx,
    *,
    release: Release,
    spec: WorkflowSpec,
    trigger: Trigger,
    tick: Tick,
    user: str | None = None,
) -> tuple[RunId, bool]:
    zone = ZoneInfo(trigger.timezone)
    document: JsonObject = {
        "at": iso(tick.at_us),
        "local": from_us(tick.at_us).astimezone(zone).replace(tzinfo=None).isoformat(),
        "schedule": trigger.name,
    }
    request = request_of(
        release,
        spec,
        environment=trigger.environment,
        trigger=TriggerRef(kind="cron", source=f"{spec.name}/{trigger.name}", key=tick.key),
        value=input_of(trigger, {"tick": document}),
        now_us=tx.now_us,
        user=user,
        priority=trigger.priority,
    )
    return intake.dispatch.start(tx, request, body_digest=digest(tick.key))


def _schedules(release: Release) -> list[tuple[WorkflowSpec, Trigger]]:
    return [
        (spec, trigger)
        for _, spec in sorted(release.workflows.items())
        for trigger in spec.triggers
        if trigger.kind == "cron"
    ]


def _find(release: Release, workflow: WorkflowName, name: str) -> tuple[WorkflowSpec, Trigger]:
    spec = release.workflows.get(workflow)
    found = next((t for t in spec.triggers if t.name == name), None) if spec else None
    if spec is None or found is None:
        raise NotFoundError(f"there is no trigger `{workflow}/{name}`")
    if found.kind != "cron":
        raise InputError(f"the trigger `{workflow}/{name}` is not a schedule")
    return spec, found
