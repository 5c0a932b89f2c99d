"""The howto about kill switches, run as it stands on the project of the demonstration."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "kill-switch.md").read_text("utf-8")


def _set(told: str) -> str:
    return told.splitlines()[-1].rpartition("kill switch ")[2].strip()


def test_the_page_stops_calls_and_lets_them_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command as it stands there; in prod it takes two people."""
    shutil.copytree(ROOT / "examples" / "service_desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    done("apply", "--yes")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    stop, status, narrow, lift = commands
    role = ("--role", "operator", "--role", "viewer")
    people = [interlock("key", "create", name, *role).out.strip() for name in ("kim", "lee")]

    told = done(*stop).splitlines()[0]
    shown = done(*status)
    who = done("who-can", "write", "--system", "servicedesk")
    switch = _set(told)
    answers = list[str]()
    for command, token in ((narrow, people[0]), (narrow, people[1])):
        monkeypatch.setenv("INTERLOCK_TOKEN", token)
        answers.append(done(*[switch if word == "ID" else word for word in command]))
    left = _set(answers[1])
    for token in people:
        monkeypatch.setenv("INTERLOCK_TOKEN", token)
        answers.append(done(*[left if word == "ID" else word for word in lift]))

    assert "stopped: writes of system `servicedesk`, by kill switch" in told
    assert "duplicate tickets, case 4711" in shown
    assert "not now: stopped by" in who
    assert "not lifted yet" in answers[0]
    assert "still stopped: writes of environment `prod`, system `servicedesk`" in answers[1]
    assert "not lifted yet" in answers[2]
    assert "lifted" == answers[3].strip()
    assert "nothing is stopped" in done("kill", "status")
