from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from interlock.calls.road import Live
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.clock import from_us, to_us
from interlock.domain.errors import InputError, NotFoundError
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.workflow import Step, Trigger
from interlock.runtime.schedule import (
    ScheduleLoop,
    fire,
    fire_due,
    overview,
    set_paused,
    ticks,
)
from interlock.store import runs, triggers
from interlock.store.triggers import list_schedules
from interlock.store.tx import Tx
from interlock.testing.clock import START_US
from tests.conformance.store_race import wait_until_blocked
from tests.runtime.plane import FIND, MANUAL, WORKFLOW, Plane, open_plane, release, workflow

LOOK = Step(name="look", tool=FIND, args={"title": "sweep"})
HOURLY = Trigger(name="sweep", kind="cron", schedule="0 * * * *")
HOUR_S = 3600


def at(text: str) -> int:
    """Return an instant in microseconds."""
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def first(trigger: Trigger, after: str, count: int) -> list[tuple[str, str]]:
    """Return the next ticks after an instant, as UTC times and keys."""
    found = islice(ticks(trigger, after_us=at(after)), count)
    return [(from_us(tick.at_us).strftime("%m-%d %H:%M"), tick.key) for tick in found]


def scheduled(plane: Plane, trigger: Trigger = HOURLY, **changes: object) -> None:
    """Apply a workflow with a schedule and see it for the first time."""
    plane.apply(release(workflow(LOOK, triggers=(trigger, MANUAL), **changes)))
    assert [] == fire_due(plane.intake)


def later(plane: Plane, seconds: float) -> list[RunId]:
    """Let time pass and fire what is due."""
    plane.clock.advance(seconds)
    return fire_due(plane.intake)


def inputs(plane: Plane, run_ids: list[RunId]) -> list[Json]:
    """Return the inputs of runs."""
    return [plane.get(run_id).request.input for run_id in run_ids]


def keys(plane: Plane, run_ids: list[RunId]) -> list[str]:
    """Return the keys of the ticks that started runs."""
    return [plane.get(run_id).request.trigger.key for run_id in run_ids]


def test_an_hour_that_clocks_repeat_fires_once() -> None:
    """A daily schedule is named by its wall time (Berlin, 25 October 2026)."""
    daily = Trigger(name="d", kind="cron", schedule="30 2 * * *", timezone="Europe/Berlin")

    assert [
        ("10-25 00:30", "2026-10-25T02:30:00"),
        ("10-26 01:30", "2026-10-26T02:30:00"),
    ] == first(daily, "2026-10-24T12:00:00", 2)


def test_minutes_of_a_repeated_fixed_hour_have_the_same_key() -> None:
    """Whatever instants the library yields, the second 02:00 cannot start a second run."""
    often = Trigger(name="d", kind="cron", schedule="*/30 2 * * *", timezone="Europe/Berlin")

    found = [key for _, key in first(often, "2026-10-24T12:00:00", 6)]

    assert {"2026-10-25T02:00:00", "2026-10-25T02:30:00"} == {
        key for key in found if key.startswith("2026-10-25")
    }


def test_a_time_that_clocks_skip_comes_at_the_next_valid_instant() -> None:
    """A daily schedule is not left out in spring (Berlin, 29 March 2026)."""
    daily = Trigger(name="d", kind="cron", schedule="30 2 * * *", timezone="Europe/Berlin")

    assert ["03-29 01:00", "03-30 00:30"] == [
        moment for moment, _ in first(daily, "2026-03-28T12:00:00", 2)
    ]


def test_a_schedule_of_every_hour_runs_through_the_change_of_clocks() -> None:
    """With a wildcard hour each instant counts, named by UTC."""
    hourly = Trigger(name="h", kind="cron", schedule="0 * * * *", timezone="Europe/Berlin")

    assert ["10-25 00:00", "10-25 01:00", "10-25 02:00"] == [
        moment for moment, _ in first(hourly, "2026-10-24T23:30:00", 3)
    ]


def test_a_schedule_starts_with_its_first_sight(tmp_path: Path) -> None:
    """A new schedule does not make up for its past."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)

        assert [] == later(plane, 60)
        assert ["2023-11-14T23:00:00.000Z"] == keys(plane, later(plane, HOUR_S))


def test_a_tick_starts_its_run_once_over_all_workers(tmp_path: Path) -> None:
    """Workers that look at the same time start one run."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)
        plane.clock.advance(HOUR_S)

        with ThreadPoolExecutor(4) as workers:
            started = list(workers.map(fire_due, [plane.intake] * 4))

        assert 1 == len([run_id for found in started for run_id in found])


@pytest.mark.parametrize(("catch_up", "hours"), [("none", []), ("last", [3]), ("all", [1, 2, 3])])
def test_missed_ticks_are_made_up_for_as_declared(
    tmp_path: Path, catch_up: str, hours: list[int]
) -> None:
    """After three hours without a worker: no run, the newest, or all in order."""
    with open_plane(tmp_path) as plane:
        scheduled(plane, replace(HOURLY, catch_up=catch_up))  # type: ignore[arg-type]  # a literal

        found = keys(plane, later(plane, 3 * HOUR_S))

        first_us = at("2023-11-14T22:00:00")
        expected = [
            from_us(first_us + hour * HOUR_S * 1_000_000).strftime("%Y-%m-%dT%H:00:00.000Z")
            for hour in hours
        ]
        assert expected == found


def test_no_more_than_a_hundred_ticks_are_made_up_for(tmp_path: Path) -> None:
    """A long outage does not end in a flood."""
    with open_plane(tmp_path) as plane:
        scheduled(plane, replace(HOURLY, catch_up="all"))

        assert 100 == len(later(plane, 200 * HOUR_S))


def test_a_tick_in_time_fires_without_catch_up(tmp_path: Path) -> None:
    """`none` drops what was missed, not what is found a moment late."""
    with open_plane(tmp_path) as plane:
        scheduled(plane, replace(HOURLY, catch_up="none"))
        plane.clock.advance(-(START_US // 1_000_000) % HOUR_S)

        assert 1 == len(later(plane, 30))


def test_a_paused_schedule_is_silent_and_never_makes_up_for_it(tmp_path: Path) -> None:
    """What fell into the pause is gone."""
    with open_plane(tmp_path) as plane:
        scheduled(plane, replace(HOURLY, catch_up="all"))
        set_paused(plane.intake, WORKFLOW, "sweep", is_paused=True)
        paused = later(plane, 3 * HOUR_S)
        set_paused(plane.intake, WORKFLOW, "sweep", is_paused=False)

        assert ([], []) == (paused, fire_due(plane.intake))
        assert 1 == len(later(plane, HOUR_S))


def test_a_pause_is_not_lost_to_a_tick(tmp_path: Path, postgres_url: str) -> None:
    """A worker that fires while a person pauses waits for the pause, and keeps it."""
    with open_plane(tmp_path, url=postgres_url) as plane, ThreadPoolExecutor(1) as worker:
        scheduled(plane)
        plane.clock.advance(HOUR_S)

        with plane.db.transaction("pause") as tx:
            last_us = tx.now_us - HOUR_S * 1_000_000
            triggers.put_schedule(tx, WORKFLOW, "sweep", is_paused=True, last_tick_us=last_us)
            tx.flush()
            tick = worker.submit(fire_due, plane.intake)
            wait_until_blocked(plane.db)
        started = tick.result(timeout=10)

        assert ([], [True]) == (started, [row.is_paused for row in plane.read(list_schedules)])


def test_a_schedule_may_be_declared_paused(tmp_path: Path) -> None:
    """It waits to be resumed, and a later release does not pause it again."""
    with open_plane(tmp_path) as plane:
        scheduled(plane, replace(HOURLY, is_paused=True))
        paused = later(plane, HOUR_S)
        set_paused(plane.intake, WORKFLOW, "sweep", is_paused=False)
        scheduled(plane, replace(HOURLY, is_paused=True))

        assert [] == paused
        assert 1 == len(later(plane, HOUR_S))


def test_a_schedule_can_be_fired_by_hand(tmp_path: Path) -> None:
    """By hand a run starts at once, also while paused, for the person who asked."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)
        set_paused(plane.intake, WORKFLOW, "sweep", is_paused=True)

        one, two = (fire(plane.intake, WORKFLOW, "sweep", by="ann") for _ in range(2))
        same = [fire(plane.intake, WORKFLOW, "sweep", by="ann", key="k") for _ in range(2)]

        assert one.run_id is not None
        assert one.run_id != two.run_id
        assert same[0].run_id == same[1].run_id
        assert "ann" == plane.get(one.run_id).request.user


def test_the_tick_is_the_input(tmp_path: Path) -> None:
    """A template may point at the nominal time, in UTC and in the schedule's time zone."""
    told: JsonObject = {"at": "tick:/at", "local": "tick:/local", "name": "tick:/schedule"}
    trigger = replace(HOURLY, timezone="Europe/Berlin", input=told)
    with open_plane(tmp_path) as plane:
        scheduled(plane, trigger)

        found = inputs(plane, later(plane, HOUR_S))

        assert [
            {"at": "2023-11-14T23:00:00.000Z", "local": "2023-11-15T00:00:00", "name": "sweep"}
        ] == found


def test_a_schedule_that_fails_is_dropped_and_stops_no_other(tmp_path: Path) -> None:
    """An input that breaks the contract is logged once a tick, and the next schedule fires."""
    bad = replace(HOURLY, name="bad", input={"title": 1})
    schema: Json = {"type": "object", "properties": {"title": {"type": "string"}}}
    spec = workflow(LOOK, triggers=(bad, HOURLY), input_schema=schema)
    with open_plane(tmp_path) as plane:
        plane.apply(release(spec))
        fire_due(plane.intake)

        assert 1 == len(later(plane, HOUR_S))
        assert [] == fire_due(plane.intake)


@pytest.mark.parametrize(("workflow", "name"), [("nothing", "sweep"), (WORKFLOW, "nothing")])
def test_an_unknown_trigger_is_not_found(tmp_path: Path, workflow: str, name: str) -> None:
    """The error names what was asked for."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)

        with pytest.raises(NotFoundError, match=name):
            fire(plane.intake, WorkflowName(workflow), name, by="ann")


def test_only_schedules_can_be_paused(tmp_path: Path) -> None:
    """Other triggers have no ticks."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)

        with pytest.raises(InputError, match="is not a schedule"):
            set_paused(plane.intake, WORKFLOW, "by-hand", is_paused=True)


def test_the_overview_shows_last_and_next(tmp_path: Path) -> None:
    """Every trigger is listed; a schedule with its times, a paused one without a next."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)

        def look(tx: Tx) -> list[tuple[str, bool, int | None, int | None]]:
            found = overview(tx, plane.live.at(tx).release)
            return [(it.trigger.name, it.is_paused, it.last_us, it.next_us) for it in found]

        first_tick, second_tick = at("2023-11-14T23:00:00"), at("2023-11-15T00:00:00")
        new = plane.read(look)
        plane.clock.advance(HOUR_S)
        fire_due(plane.intake)
        fired = plane.read(look)
        set_paused(plane.intake, WORKFLOW, "sweep", is_paused=True)
        paused = plane.read(look)

        by_hand = ("by-hand", False, None, None)
        assert [("sweep", False, START_US, first_tick), by_hand] == new
        assert [("sweep", False, first_tick, second_tick), by_hand] == fired
        assert [("sweep", True, START_US + HOUR_S * 1_000_000, None), by_hand] == paused


def test_the_loop_fires_and_stops(tmp_path: Path) -> None:
    """A thread fires what is due soon after it starts and ends when it is told to."""
    with open_plane(tmp_path) as plane:
        scheduled(plane)
        plane.clock.advance(HOUR_S)
        started = watched(plane)
        loop = ScheduleLoop(plane.intake)

        loop.start()
        is_fired = started.wait(timeout=10)
        loop.stop()

        assert is_fired
        assert 1 == len(plane.read(runs.list_runs))


def test_an_unexpected_error_does_not_end_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the schedules are looked at again."""
    monkeypatch.setattr("interlock.runtime.schedule.LONGEST_PAUSE_S", 0.01)
    with open_plane(tmp_path) as plane:
        scheduled(plane)
        plane.clock.advance(HOUR_S)
        started = watched(plane)
        faults = iter([RuntimeError("a bug")])
        look = plane.live.at

        def look_or_fail(tx: Tx) -> Live:
            for fault in faults:
                raise fault
            return look(tx)

        plane.live.at = look_or_fail  # type: ignore[method-assign]  # fails once
        loop = ScheduleLoop(plane.intake)
        loop.start()
        is_fired = started.wait(timeout=10)
        loop.stop()

        assert is_fired


def watched(plane: Plane) -> threading.Event:
    """Return an event that is set when a run is started."""
    started = threading.Event()
    start: Callable[..., tuple[RunId, bool]] = plane.engine.dispatch.start

    def start_and_tell(*args: object, **kwargs: object) -> tuple[RunId, bool]:
        result = start(*args, **kwargs)
        started.set()
        return result

    plane.engine.dispatch.start = start_and_tell  # type: ignore[method-assign]  # a watcher
    return started
