from __future__ import annotations

from pathlib import Path

import pytest

from interlock.app import Interlock
from interlock.cli.server import check_machine
from interlock.config import Config, ModelSettings
from interlock.domain.errors import UnavailableError
from interlock.domain.ids import ExecutorId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import Run, RunState
from interlock.serve import doctor
from interlock.serve.queues.loop import QueueLoop
from interlock.store import leases, runs
from interlock.store.tx import Tx
from interlock.testing.clock import ManualClock
from interlock.testing.recorder_project import session_files
from interlock.tools.sandbox import process
from tests.manifest.sample import FILES
from tests.serve.plane import API, Plane, body_of, rows
from tests.serve.sample import REFERENCE, WORKFLOW, files
from tests.tools.sandbox.box import need_sandbox


def findings(plane: Plane) -> dict[str, tuple[bool, str]]:
    """Return what the doctor finds, by name."""
    checks = doctor.examine(plane.interlock, plane.app.state.queues)
    return {check.name: (check.is_ok, check.message) for check in checks}


def test_a_fresh_installation_is_well_but_for_what_is_missing(plane: Plane) -> None:
    """Each finding says what to do."""
    found = findings(plane)

    assert {"release"} == {name for name, (is_ok, _) in found.items() if not is_ok}
    assert (False, "nothing is applied; run `interlock apply FOLDER`") == found["release"]
    assert found["database"][1].startswith("SQLite 3.")
    assert (True, "none, and no agent needs one") == found["models"]


def test_a_secret_that_is_not_stored_is_named(plane: Plane) -> None:
    """With the command that stores it; afterwards it is well."""
    plane.apply(files())
    missing = findings(plane)["secrets"]
    store(plane, "whsec_" + "QUFB" * 8)

    assert (
        False,
        f"no secret is stored at `{REFERENCE}`; run `interlock secret set {REFERENCE}`",
    ) == missing
    assert (True, "1 of the live release can be read from the database, sealed") == findings(plane)[
        "secrets"
    ]


def test_a_secret_that_signs_nothing_is_named(plane: Plane) -> None:
    """Before the first delivery is refused for it."""
    plane.apply(files())
    store(plane, "whsec_eA==")

    message = f"`{REFERENCE}`: the webhook's secret is shorter than 24 bytes; make a new one"
    assert (False, message) == findings(plane)["secrets"]


def test_untrusted_code_that_this_machine_cannot_run_is_named(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a release has such code; the walls are built to find out."""
    need_sandbox()
    before = findings(plane)["sandbox"]
    server = """
interlock: v1
kind: System
name: words
title: Words
owner: platform
---
interlock: v1
kind: Server
name: words-dev
system: words
environment: dev
protocol: python-sandbox
source: functions/text
"""
    files_ = {**files(), "servers/code.yaml": server, "functions/text/names.py": "def f(): ..."}
    plane.apply(files_)
    well = findings(plane)["sandbox"]
    check_machine(plane.interlock)
    monkeypatch.setattr(process, "INSIDE", Path("/nowhere/inside.py"))
    ill = findings(plane)["sandbox"]
    with pytest.raises(UnavailableError, match="`words-dev` cannot be called here; mend that"):
        check_machine(plane.interlock)

    assert (True, "no server has untrusted code") == before
    assert (True, "this machine can run `words-dev`") == well
    assert not ill[0]
    assert ill[1].endswith("; `words-dev` cannot be called here")


def store(plane: Plane, secret: str) -> None:
    """Store the secret of the project's webhook."""
    plane.interlock.secrets.set(REFERENCE, secret, by="tests")


def test_a_model_that_an_agent_wants_must_be_set(plane: Plane) -> None:
    """The agent is named, and the section of the settings."""
    plane.apply(FILES)

    assert (
        False,
        "the agent `clerk` wants the model `default`; set [models.default] in interlock.toml",
    ) == findings(plane)["models"]


def test_an_outside_agent_wants_the_models_that_it_names(plane: Plane) -> None:
    """And none besides: its framework may have its own."""
    project, path = session_files("http://127.0.0.1:9"), "agents/helper.yaml"
    plane.apply(project)
    without = findings(plane)["models"]
    changed = project[path].replace("version: 1", "version: 2") + "models: [small]\n"
    plane.apply(project | {path: changed})

    assert (True, "none, and no agent needs one") == without
    assert (
        False,
        "the agent `helper` wants the model `small`; set [models.small] in interlock.toml",
    ) == findings(plane)["models"]


def test_a_model_needs_a_price_and_its_key(tmp_path: Path) -> None:
    """Without a price every request would be refused; without its key, too."""
    model = ModelSettings(
        name="default", provider="openai-chat:made-up", api_key="secret://openai/dev/key"
    )
    opened = Interlock.open(Config(data_dir=tmp_path / "data", models={"default": model}))
    found = {
        check.name: check.message for check in doctor.examine(opened, QueueLoop(opened.intake))
    }
    opened.close()

    assert (
        "the model `default` has no price, so it is refused; declare one;"
        " no secret is stored at `secret://openai/dev/key`; run `interlock secret set secret://openai/dev/key`"
    ) == found["models"]


def test_a_data_folder_that_others_may_read_is_not_well(plane: Plane) -> None:
    """The sentence holds the command that mends it."""
    folder: Path = plane.interlock.config.data_dir
    folder.chmod(0o755)

    assert (False, f"others may read `{folder}`; run `chmod go= {folder}`") == (
        findings(plane)["files"]
    )


def test_work_without_a_worker_is_not_well(plane: Plane) -> None:
    """Runs that nobody takes are said to wait."""
    plane.apply(files())
    start(plane)

    assert (False, "0 at work, 1 runs queued; start `interlock serve`") == (
        findings(plane)["workers"]
    )


def test_what_is_to_be_deleted_is_told(tmp_path: Path) -> None:
    """And who does it; nobody is no harm while nothing is old enough."""
    clock = ManualClock()
    plane = Plane(tmp_path, clock=clock, config=Config(data_dir=tmp_path / "d", retention_days=7))
    plane.apply(files())
    start(plane)
    db, me = plane.interlock.db, plane.interlock.executor_id

    def end(tx: Tx) -> None:
        (run,) = runs.list_runs(tx)
        runs.claim(tx, run.run_id, segment=0, executor_id=me)
        runs.finish(tx, run.run_id, epoch=1, state=RunState.SUCCEEDED)

    db.run("test", end)
    young = findings(plane)["retention"]
    clock.advance(8 * 86_400)
    old = findings(plane)["retention"]
    db.run("test", lambda tx: leases.take_leadership(tx, "retention", me, 1_000_000))
    led = findings(plane)["retention"]
    plane.interlock.close()

    told = "runs are kept 7 days after their end, {} are to be deleted"
    nobody = "; nobody does it: run `interlock serve` or `interlock scheduler`"
    assert (True, told.format(0)) == young
    assert (False, told.format(1) + nobody) == old
    assert (True, f"{told.format(1)}; `{me}` deletes") == led


def test_a_worker_that_is_about_to_stop_is_told(plane: Plane) -> None:
    """So that a restart is not taken for a loss."""
    db = plane.interlock.db

    def leave(tx: Tx) -> None:
        for name in ("one", "two"):
            leases.register(
                tx, ExecutorId(name), host="h", pid=1, pid_started="1", ttl_us=60_000_000
            )
        leases.renew(tx, ExecutorId("two"), ttl_us=60_000_000, is_draining=True)

    db.run("test", leave)

    assert (True, "2 at work (1 of them about to stop), 0 runs queued") == (
        findings(plane)["workers"]
    )


def start(plane: Plane) -> None:
    """Start one run, which stays queued."""
    plane.interlock.start_run(
        WorkflowName(WORKFLOW),
        environment="dev",
        value={"title": "x"},
        by=Principal(name="ops", kind=PrincipalKind.USER),
        key=None,
    )


def test_runs_that_were_set_aside_are_named(plane: Plane) -> None:
    """With what a person may do about them; the newest stand for the rest."""
    plane.apply(files())
    for _ in range(4):
        start(plane)

    def set_aside(tx: Tx) -> list[Run]:
        worker = ExecutorId("dead")
        for run in runs.list_runs(tx):
            runs.claim(tx, run.run_id, segment=0, executor_id=worker)
        leases.takeover(tx, worker, max_recoveries=0)
        return runs.list_runs(tx)

    fresh = findings(plane)["dead letters"]
    newest = plane.interlock.db.run("test", set_aside)

    named = ", ".join(f"`{run.run_id}`" for run in newest[:3])
    is_ok, message = findings(plane)["dead letters"]
    assert ((True, "no run is set aside"), False) == (fresh, is_ok)
    assert message.startswith(
        f"4 set aside since they kept losing their workers: {named} and 1 more;"
    )


def test_runs_that_no_worker_can_run_are_told(plane: Plane) -> None:
    """With what the worker that is wanted has to have."""
    plane.apply(files())
    start(plane)

    def wait(tx: Tx) -> None:
        (run,) = runs.list_runs(tx)
        runs.miss_version(tx, run.run_id, what="function find")

    plane.interlock.db.run("test", wait)

    message = "1 runs wait for a worker that has: function find; start one where that is installed"
    assert (False, message) == findings(plane)["versions"]


async def test_the_findings_are_asked_for_over_rest(plane: Plane) -> None:
    """As the terminal shows them."""
    body = body_of(await plane.send("GET", f"{API}/doctor", token=plane.key(Role.VIEWER)))

    assert list(findings(plane)) == [check["name"] for check in rows(body, "checks")]
