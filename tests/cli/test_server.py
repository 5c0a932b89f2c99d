"""`interlock serve` as a process of its own, and the terminal as its client."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.cli.terminal import START_S, Server, done, interlock

COMMAND = Path(sys.executable).with_name("interlock")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as running:
        yield running


@pytest.fixture
def project(folder: Path, recorder: Recorder) -> Path:
    """The recorder's project, whose keyed writes wait for `data-owners`, and an input."""
    for path, text in files(recorder.url, approve=True).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "input.json").write_text('{"text": "hello"}')
    return folder


def start(effect_class: str) -> str:
    """Start a run that makes one call of a class, and return its id."""
    return done("run", "start", WORKFLOW_OF[effect_class], "--input", "input.json")


def approver() -> str:
    """Return the token of an approver."""
    made = interlock(
        "key", "create", "dana", "--role", "viewer", "--role", "approver", "--group", "data-owners"
    )
    return made.out.strip()


def waiting(noun: str, *arguments: str) -> dict[str, object]:
    """Return the only thing that a list holds, as soon as there is one."""
    done_at = threading.Event()
    for _ in range(300):
        found = interlock(noun, *arguments, "--json").json[f"{noun}s"]
        assert isinstance(found, list)
        if found and isinstance(found[0], dict):
            return {**found[0]}
        done_at.wait(0.1)
    pytest.fail(f"no {noun} appeared")


def test_a_call_waits_for_a_person_across_a_kill(
    project: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve, apply, start, kill -9, look without a server, serve again, approve, watch."""
    with Server(project) as server:
        done("apply", "--yes")
        run_id = start("keyed")
        waiting("run", "list", "--state", "waiting")
        server.kill()
        alone = interlock("run", "show", run_id)
        doctor = done("doctor")
    with Server(project) as server:
        approval_id = str(waiting("approval", "list")["approval_id"])
        shown = done("approval", "show", approval_id)
        refused = interlock("approval", "approve", approval_id)
        with monkeypatch.context() as as_dana:
            as_dana.setenv("INTERLOCK_TOKEN", approver())
            answered = done("approval", "approve", approval_id, "--reason", "known order")
        watched = done("run", "watch", run_id, "--timeout", "60")
        _check_story(run_id)
        code = server.stop()

    assert (0, "", True) == (alone.code, alone.err, "state        waiting" in alone.out)
    assert "none runs; `interlock serve` starts one" in doctor
    assert f"tool         {TOOL_OF['keyed']}" in shown
    assert "    text = hello" in shown
    assert (1, True) == (refused.code, "needs one of the roles `approver`" in refused.err)
    assert "approved by dana" == answered.splitlines()[-1]
    assert "run succeeded" == watched.splitlines()[-1]
    assert [1, 0] == [len(recorder.log().effects), code]


def _check_story(run_id: str) -> None:
    effect_id = str(waiting("effect", "list")["effect_id"])
    call = done("call", "show", effect_id)

    assert "approved by dana" in call
    assert "reply.succeeded by interlock" in call
    assert call == done("effect", "show", effect_id)
    explained = done("policy", "explain", effect_id)
    assert ["needs_approval", "allow"] == [
        line.split()[-1] for line in explained.splitlines() if not line.startswith(" ")
    ]
    assert "  agreed by            data-owners" in explained
    assert "interlock.decide  allow" in done("run", "show", run_id, "--trace")
    assert "runs        1 succeeded" in done("summary")
    assert "No business key was written more than once." == done("why", "duplicates")
    assert "✓ server       answers" in done("doctor")


def test_a_parked_effect_is_settled_from_the_terminal(project: Path, recorder: Recorder) -> None:
    """Listed with what to do; the run goes on with the answer."""
    for path, text in files(recorder.url).items():
        (project / path).write_text(text)
    recorder.arm(Fault(kind="reset", path="/blind/items"))
    with Server(project):
        done("apply", "--yes")
        run_id = start("blind")
        effect_id = str(waiting("effect", "list", "--state", "parked")["effect_id"])
        parked = done("effect", "parked")
        unknown = interlock("effect", "resolve", effect_id, "perhaps", "--reason", "a guess")
        settled = done("effect", "resolve", effect_id, "done", "--reason", "I see it there")
        again = interlock("effect", "resolve", effect_id, "done", "--reason", "I see it there")

        assert effect_id in parked
        assert "then: interlock effect resolve ID done|absent|abandoned" in parked
        assert (2, "confirmed_done", 1) == (unknown.code, settled, again.code)
        assert "run succeeded" == done("run", "watch", run_id).splitlines()[-1]
        assert "nothing is parked" == done("effect", "parked")


def test_the_address_is_for_this_user_and_goes_with_the_server(folder: Path) -> None:
    """Nobody else can read the token; a second server of the folder is refused, and told where."""
    with Server(folder) as server:
        data = folder / ".interlock"
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (data, data / "address.json", data / "local.key", data / "instance.key")
        }
        health = httpx2.get(f"{server.url}/healthz", trust_env=False)
        page = httpx2.get(done("key", "link"), trust_env=False)
        second = _serve(folder)
        code = server.stop()

    assert (1, f"error: a server of this data folder runs already at {server.url}") == second
    assert {".interlock": 0o700, "address.json": 0o600} | {
        "local.key": 0o600,
        "instance.key": 0o600,
    } == modes
    assert (200, 200, 0) == (health.status_code, page.status_code, code)
    assert not (data / "address.json").exists()


def test_a_link_to_sign_in_is_printed_to_a_person_only(folder: Path) -> None:
    """What goes to a log or a pipe says how to get one."""
    with Server(folder) as server:
        logged = server.printed[-1]
    ours, theirs = os.openpty()
    with (folder / "serve.err").open("wb") as errors, os.fdopen(ours) as terminal:
        process = subprocess.Popen(
            [COMMAND, "serve"],
            cwd=folder,
            env={**os.environ, "INTERLOCK_PORT": "0"},
            stdout=theirs,
            stderr=errors,
        )
        os.close(theirs)
        try:
            shown = next(line for line in terminal if line.startswith("console:"))
        finally:
            process.kill()
            process.wait(timeout=START_S)

    assert f"console: {server.url} (`interlock key link` prints a link to sign in)" == logged
    assert "/sign-in?link=" in shown


def test_a_port_that_is_taken_is_one_sentence(folder: Path) -> None:
    """Said before the database is opened."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = _serve(folder, INTERLOCK_PORT=str(port))

    assert 1 == refused[0]
    assert f"error: cannot listen at `127.0.0.1:{port}` (Address already in use)" in refused[1]
    assert not (folder / ".interlock").exists()


@pytest.mark.usefixtures("folder")
def test_a_scheduler_of_its_own_needs_postgres() -> None:
    """On SQLite one process does it all."""
    code, error = interlock("scheduler").refusal

    assert 1 == code
    assert (
        "error: a scheduler of its own needs Postgres; on SQLite `interlock serve` works" == error
    )


def test_a_worker_of_its_own_needs_postgres() -> None:
    """On SQLite the server does the work."""
    code, error = interlock("worker").refusal

    assert 1 == code
    assert "error: a worker of its own needs Postgres; on SQLite `interlock serve` works" == error


def test_settings_that_cannot_be_used_are_named(folder: Path) -> None:
    """Every problem, with its line, also for a server."""
    (folder / "interlock.toml").write_text('prot = 1\nenvironment = "moon"\n')

    code, error = interlock("serve").refusal

    assert 1 == code
    assert "interlock.toml:1: unknown key `prot` (did you mean `port`?)" in error
    assert "interlock.toml:2: `environment` should be" in error


def test_a_server_and_a_worker_share_postgres(
    project: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server only takes requests; the worker does what they start, and stops when asked."""
    monkeypatch.setenv("INTERLOCK_DATABASE_URL", postgres_url)
    with Server(project, "--no-worker"):
        done("apply", "--yes")
        worker = subprocess.Popen(
            [COMMAND, "worker"], cwd=project, stdout=subprocess.PIPE, text=True
        )
        try:
            assert worker.stdout is not None
            assert "is ready" in worker.stdout.readline()
            run_id = start("read")
            watched = done("run", "watch", run_id, "--timeout", "60")
            worker.terminate()
            code = worker.wait(timeout=START_S)
        finally:
            worker.kill()
            worker.wait(timeout=START_S)
            assert worker.stdout is not None
            worker.stdout.close()

    assert ("run succeeded", 0) == (watched.splitlines()[-1], code)


def _serve(folder: Path, **variables: str) -> tuple[int, str]:
    """Run a server that must refuse to start; return its exit code and what it complained of."""
    ended = subprocess.run(
        [COMMAND, "serve"],
        cwd=folder,
        env={**os.environ, "INTERLOCK_PORT": "0", **variables},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.rstrip("\n")
