"""R8: a kill switch stops every worker within a second of its acknowledgement, and a restart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx2
import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import EffectId, idempotency_key_of
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import WORKFLOW_OF, files
from tests.acceptance.test_gateway_crash import recorder
from tests.cli.terminal import Server, done, interlock

__all__ = ["recorder"]
pytestmark = pytest.mark.timeout(180)
RUNS, MORE = 100, 10
SECOND_US = 1_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Path:
    """A project whose workflows write to the recorder, in the folder where the test is."""
    monkeypatch.chdir(tmp_path)
    for path, text in files(recorder.url).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


class Caller:
    """Starts runs at servers, asks how they stand, and stops their calls."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        self._urls = urls
        self._http = httpx2.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connections."""
        self._http.close()

    def stop(self) -> JsonObject:
        """Set a kill switch; return what was acknowledged."""
        body: JsonObject = {"scope": {"environment": "dev"}, "reason": "a test"}
        answer = self._http.post(f"{self._urls[0]}/api/v1/kill-switches", json=body)
        found: JsonObject = answer.raise_for_status().json()
        return found

    def start(self, count: int) -> list[str]:
        """Start runs of the keyed write, at the servers in turn; return their ids."""
        body: JsonObject = {
            "workflow": WORKFLOW_OF["keyed"],
            "environment": "dev",
            "input": {"text": "hello"},
        }
        answers = [
            self._http.post(f"{self._urls[n % len(self._urls)]}/api/v1/runs", json=body)
            for n in range(count)
        ]
        return [str(answer.raise_for_status().json()["run_id"]) for answer in answers]

    def codes(self, run_ids: Sequence[str]) -> list[object]:
        """Wait until runs have ended, and return with which codes."""
        found = []
        for run_id in run_ids:
            while True:
                run = self._http.get(f"{self._urls[0]}/api/v1/runs/{run_id}").json()
                if run["ended_us"] is not None:
                    break
                time.sleep(0.05)
            found.append(run["error_code"])
        return found


@pytest.mark.parametrize("servers", [1, 2])
def test_nothing_new_leaves_a_second_after_it_is_set(
    folder: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    servers: int,
) -> None:
    """But for the calls that were told of, at any worker; kill -9 and a restart change nothing."""
    if servers > 1:
        monkeypatch.setenv("INTERLOCK_DATABASE_URL", request.getfixturevalue("postgres_url"))
    with ExitStack() as stack:
        running = [stack.enter_context(Server(folder)) for _ in range(servers)]
        done("apply", "--yes")
        role = ("--role", "operator", "--role", "viewer")
        token = interlock("key", "create", "dana", *role).out.strip()
        caller = stack.enter_context(Caller([server.url for server in running], token))
        recorder.arm(Fault(kind="delay", path="/keyed", count=RUNS, seconds=1.5))
        run_ids = caller.start(RUNS)
        recorder.wait_for(requests=30)

        told = caller.stop()
        acknowledged_us = time.time_ns() // 1000
        run_ids += caller.start(MORE)
        codes = caller.codes(run_ids)
        for server in running:
            server.kill()
    received = recorder.log().requests

    with Server(folder) as server, Caller([server.url], token) as caller:
        after_restart = caller.codes(caller.start(3))
        is_silent = recorder.log().requests == received
        switch = told["kill_switch"]
        assert isinstance(switch, dict)
        done("kill", "lift", str(switch["switch_id"]), "--reason", "it is over")
        lifted = caller.codes(caller.start(1))

    in_flight = told["in_flight"]
    assert isinstance(in_flight, list)
    listed = {
        idempotency_key_of(EffectId(str(row["effect_id"])))
        for row in in_flight
        if isinstance(row, dict)
    }
    late = {seen.key for seen in received if seen.at_us > acknowledged_us + SECOND_US}
    assert late <= listed
    assert codes.count("call.stopped") >= MORE
    assert codes.count(None) > 0
    assert codes.count("call.stopped") + codes.count(None) == RUNS + MORE
    assert codes.count(None) == len(recorder.log().effects) - 1
    assert ["call.stopped"] * 3 == after_restart
    assert is_silent
    assert [None] == lifted
