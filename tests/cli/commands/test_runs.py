"""`run`: starting, showing and ending runs where no server runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from interlock.cli.run_view import SET_ASIDE
from interlock.domain.ids import ExecutorId, RunId, StepName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.store import gates, leases, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from tests.cli.terminal import Said, done, interlock

UNKNOWN = "0190a0a0-0000-7000-8000-000000000000"


@pytest.fixture
def applied(project: Path) -> Path:
    """The sample project, live, and a file with a good input."""
    done("apply", "--yes")
    (project / "input.json").write_text('{"title": "vpn"}')
    return project


def start(*more: str) -> Said:
    """Start a run of the sample's workflow."""
    return interlock("run", "start", "look", "--input", "input.json", *more)


@pytest.mark.usefixtures("applied")
def test_a_run_is_started_listed_and_shown() -> None:
    """Its id alone is on stdout; that nothing works on it is said beside."""
    started = start()
    run_id = started.out.strip()

    shown = done("run", "show", run_id)
    listed = json.loads(interlock("run", "list", "--json").out)

    assert "no server runs; the run waits for `interlock serve`\n" == started.err
    assert run_id in done("run", "list")
    assert [run_id] == [run["run_id"] for run in listed["runs"]]
    assert "state        queued" in shown
    assert "· hold                 to_come" in shown
    assert "invoke_workflow look  queued" in done("run", "show", run_id, "--trace")


@pytest.mark.usefixtures("applied")
def test_a_run_without_a_plan_says_so() -> None:
    """Its JSON says the same, with how the run stands."""
    run_id = start().out.strip()

    assert "no plan was proposed in this run" == done("run", "plan", run_id)
    assert {"run_id": run_id, "state": "queued", "plans": []} == json.loads(
        done("run", "plan", run_id, "--json")
    )


def test_a_run_at_a_full_gate_names_the_holder(applied: Path) -> None:
    """What it waits for, and which runs have it."""
    first, second = (RunId(start("--key", key).out.strip()) for key in "ab")
    db = Database(f"sqlite:///{applied / '.interlock' / 'interlock.db'}")
    for run_id in (first, second):
        wanted = gates.Ask(
            run_id=run_id, name=StepName("g"), keys={"lock/7": 1}, priority=4, tenant=DEFAULT_TENANT
        )
        db.run("test", partial(gates.ask, wanted=wanted))
    db.close()

    assert f"  lock/7 is held by run {first}" in done("run", "show", second)
    assert "lock/7" not in done("run", "show", first)


@pytest.mark.usefixtures("applied")
def test_lists_can_be_narrowed() -> None:
    """By workflow and state; an empty list says which."""
    run_id = start().out.strip()

    assert run_id in done("run", "list", "--workflow", "look", "--state", "queued")
    assert "no run is like that" == done("run", "list", "--state", "failed", "--state", "waiting")
    assert 2 == interlock("run", "list", "--state", "sleeping").code


@pytest.mark.usefixtures("applied")
def test_the_same_key_is_the_same_run() -> None:
    """A script may be repeated."""
    assert start("--key", "monday").out == start("--key", "monday").out
    assert start("--key", "tuesday").out != start("--key", "monday").out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"title": "a", "title": "b"}', "`bad.json`: the keys `title` and `title` are the same"),
        ('{"title": NaN}', "`bad.json`: `NaN` is not a JSON number"),
        ("[1]", "`bad.json` holds no JSON object"),
        ("{", "`bad.json`: not JSON at line 1, column 2"),
        ('{"titel": "a"}', "the input of `look` cannot be accepted"),
        (None, "No such file or directory: `bad.json`"),
    ],
    ids=["twice", "nan", "list", "cut", "contract", "missing"],
)
def test_bad_input_is_one_sentence(applied: Path, content: str | None, problem: str) -> None:
    """What is wrong and where; no run is made."""
    if content is not None:
        (applied / "bad.json").write_text(content)

    code, error = interlock("run", "start", "look", "--input", "bad.json").refusal

    assert (1, True) == (code, error.startswith(f"error: {problem}")), error
    assert "no runs yet" in done("run", "list")


@pytest.mark.parametrize(
    "command", ["show", "cancel", "pause", "resume", "watch", "compensate", "blackboard"]
)
@pytest.mark.usefixtures("applied")
def test_an_unknown_run_is_one_sentence(command: str) -> None:
    """The same for every command, also for ids that are paths."""
    assert (1, f"error: there is no run `{UNKNOWN}`") == interlock("run", command, UNKNOWN).refusal
    assert 1 == interlock("run", command, "../healthz").code


@pytest.mark.usefixtures("applied")
def test_a_run_can_be_asked_to_stop() -> None:
    """The wish is kept until a worker acts on it."""
    run_id = start().out.strip()

    assert "cancelling" == done("run", "cancel", run_id)
    assert "cancelling" == done("run", "cancel", run_id)


@pytest.mark.usefixtures("applied")
def test_a_run_can_be_paused_and_resumed() -> None:
    """Each command says whether it did anything."""
    run_id = start().out.strip()

    assert f"pausing; `interlock run resume {run_id}` lets it go on" == done("run", "pause", run_id)
    assert "state        paused" in done("run", "show", run_id)
    assert "there is nothing to pause" in done("run", "pause", run_id)
    assert "going on" == done("run", "resume", run_id)
    assert "the run is neither paused nor dead-lettered" == done("run", "resume", run_id)


def test_a_run_that_was_set_aside_says_what_to_do(applied: Path) -> None:
    """In the list and on its own; a resume lets it go on."""
    run_id = start().out.strip()
    db = Database(f"sqlite:///{applied / '.interlock' / 'interlock.db'}")

    def set_aside(tx: Tx) -> None:
        worker = ExecutorId("dead")
        runs.claim(tx, RunId(run_id), segment=0, executor_id=worker)
        leases.takeover(tx, worker, max_recoveries=0)

    db.run("test", set_aside)
    db.close()
    said = [
        interlock("run", "list", "--state", "dead_lettered"),
        interlock("run", "show", run_id),
    ]

    assert [True, True] == [f"{SET_ASIDE}\n" == each.err for each in said], said
    assert [True, True] == [run_id in each.out for each in said]
    assert "going on" == done("run", "resume", run_id)


@pytest.mark.usefixtures("applied")
def test_a_signal_is_kept_and_counts_once() -> None:
    """Only for what the workflow waits for, and only JSON."""
    run_id = start().out.strip()
    send = ("run", "signal", run_id, "go", "--value", '{"n": 1}', "--key", "monday")

    assert "sent" == done(*send)
    assert "a signal with this key was sent before" == done(*send)
    code, error = interlock("run", "signal", run_id, "approval/1").refusal
    assert (1, True) == (code, "waits for `approval/1`, only for `go`" in error), error
    code, error = interlock("run", "signal", run_id, "go", "--value", "{").refusal
    assert (1, True) == (code, error.startswith("error: the value is no JSON")), error


@pytest.mark.usefixtures("applied")
def test_watching_without_a_server_is_refused() -> None:
    """Nothing would ever change."""
    said = interlock("run", "watch", start().out.strip())

    assert 1 == said.code
    assert "error: no server runs, so nothing goes on; start `interlock serve`\n" == said.err


@pytest.mark.usefixtures("applied")
def test_a_run_without_effects_has_nothing_to_undo() -> None:
    """And nothing on its blackboard."""
    run_id = start().out.strip()

    assert "the run has no effects to undo" == done("run", "compensate", run_id)
    assert "nothing is shared" == done("run", "blackboard", run_id)
