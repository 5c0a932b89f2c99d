"""Limits of workflows: how many runs at once, one for each locked key, and who goes first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId
from interlock.domain.release import Release
from interlock.domain.run import RunState
from interlock.domain.tool import Environment, EnvironmentBinding, Rate
from interlock.domain.workflow import Concurrency, Lock, Step, WorkflowSpec
from interlock.runtime.limits import gates_of
from interlock.store import gates
from tests.runtime.plane import CREATE, FIND, MANUAL, Plane, open_plane, release, workflow

FIND_STEP = Step(name="look", tool=FIND, args={"title": "input:/title"})
WAIT = Step(name="reply", wait="reply", timeout_s=3600.0)
LOCK = Lock(key="input:/title", hold_while_waiting=True)


def states(plane: Plane, *run_ids: RunId) -> list[tuple[RunState, str | None]]:
    """Return how runs stand, and why they wait."""
    return [(run.state, run.reason) for run in map(plane.get, run_ids)]


def test_runs_with_one_key_go_one_after_the_other(tmp_path: Path) -> None:
    """A run of another key passes; who waits sees who holds the lock."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT, lock=LOCK)))
        one, two, other = (plane.start({"title": title}) for title in ("vpn", "vpn", "vdi"))
        before = states(plane, one, two, other)
        full = plane.read(lambda tx: gates.list_full(tx, two))

        plane.signal(one, "reply", "done")

        waiting = (RunState.WAITING, "reply")
        key = "lock/default/dev/triage/vpn"
        assert [waiting, (RunState.WAITING, f"gate/{key}"), waiting] == before
        assert [gates.FullGate(key=key, places=1, holders=(one,))] == full
        assert [(RunState.SUCCEEDED, None), waiting] == states(plane, one, two)


def test_lock_is_free_while_its_run_waits_for_a_person(tmp_path: Path) -> None:
    """Unless the workflow says that it is to be held, runs of one key wait side by side."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT, lock=replace(LOCK, hold_while_waiting=False))))

        one, two = plane.start(), plane.start()

        assert [(RunState.WAITING, "reply")] * 2 == states(plane, one, two)


def test_lock_without_a_value_fails_the_run(tmp_path: Path) -> None:
    """A run whose input does not say what to lock does nothing at all."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT, lock=Lock(key="input:/customer"))))

        run = plane.get(plane.start())

        assert (RunState.FAILED, "input.invalid") == (run.state, run.error_code)


def test_no_more_runs_go_on_than_declared(tmp_path: Path) -> None:
    """Further ones wait; the trigger's priority says who is next."""
    urgent = replace(MANUAL, priority=9)
    held = {"concurrency": Concurrency(runs=1), "lock": LOCK}
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT, **held)))
        one, two = plane.start({"title": "1"}), plane.start({"title": "2"})
        plane.apply(release(workflow(WAIT, **held, triggers=(urgent,))))
        three = plane.start({"title": "3"})

        plane.signal(one, "reply", "done")

        full = (RunState.WAITING, "gate/runs/triage/dev")
        assert [full, (RunState.WAITING, "reply")] == states(plane, two, three)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"concurrency": Concurrency(runs=3)}, {"runs/triage/dev": 3}),
        ({"concurrency": Concurrency(runs=3, per="tenant")}, {"runs/triage/dev/default": 3}),
        ({"lock": Lock(key="input:/title", name="a")}, {"lock/default/dev/a/vpn": 1}),
        ({"lock": Lock(key="input:/n")}, {"lock/default/dev/triage/7": 1}),
    ],
)
def test_gates_are_named_for_what_they_limit(
    tmp_path: Path, changes: dict[str, object], expected: dict[str, int]
) -> None:
    """Keys are read by people; a name makes workflows share their locks."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run = plane.get(plane.queue({"title": "vpn", "n": 7}))

        assert expected == gates_of(workflow(WAIT, **changes), run)


def test_long_value_is_named_by_its_digest(tmp_path: Path) -> None:
    """A key has a bounded length, and two values never share one."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        runs = [plane.get(plane.queue({"title": f"{'long' * 99}{n}"})) for n in range(2)]

        one, two = (list(gates_of(workflow(WAIT, lock=LOCK), run)) for run in runs)

        assert one != two
        assert len("lock/default/dev/triage/sha256:") + 64 == len(one[0])


def rated(scope: str, spec: WorkflowSpec) -> Release:
    """Return a project in which one call a minute may be made under a rate of this scope."""
    rate = Rate(calls=1, per_s=60.0)
    if scope == "workflow":
        return release(replace(spec, rate=rate))
    project = release(spec)
    if scope == "server":
        servers = {name: replace(each, rate=rate) for name, each in project.servers.items()}
        return replace(project, servers=servers)
    bound: dict[Environment, EnvironmentBinding] = {
        "dev": EnvironmentBinding(server="desk-dev", rate=rate)
    }
    return replace(
        project, tools={name: replace(t, environments=bound) for name, t in project.tools.items()}
    )


@pytest.mark.parametrize("scope", ["tool", "server", "workflow"])
def test_calls_beyond_a_rate_wait_for_their_turn(tmp_path: Path, scope: str) -> None:
    """Over all runs; a run that waits costs nothing, and no call is an error."""
    with open_plane(tmp_path) as plane:
        plane.apply(rated(scope, workflow(FIND_STEP)))
        run_ids = [plane.start({"title": str(n)}) for n in range(3)]
        first = [plane.get(run_id).state for run_id in run_ids]
        plane.engine.advance(60)
        second = list(plane.desk.asked)
        plane.engine.advance(60)

        assert [RunState.SUCCEEDED, RunState.WAITING, RunState.WAITING] == first
        assert (["0", "1"], ["0", "1", "2"]) == (second, plane.desk.asked)
        assert {RunState.SUCCEEDED} == {plane.get(run_id).state for run_id in run_ids}


def test_a_refused_call_uses_up_no_rate(tmp_path: Path) -> None:
    """What policy denies, and what waits for a person, leaves room for others."""
    with open_plane(tmp_path) as plane:
        spec = workflow(Step(name="make", tool=CREATE, args={"title": "input:/title"}))
        plane.apply(rated("server", replace(spec, autonomy={})))
        run_ids = [plane.start({"title": str(n)}) for n in range(2)]

        states = [plane.effects(run_id)[0].state for run_id in run_ids]

        assert [EffectState.DRAFTED] * 2 == states
