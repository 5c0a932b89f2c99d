"""The howto about Git, run as it stands with the server as locked, up to a commit."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from scripts import peers
from tests.acceptance.reference_servers import Seat, git
from tests.cli.terminal import Server, approve, done
from tests.serve.gateway.door import text_of
from tests.test_mcp_server_howto import write

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "git.md").read_text("utf-8")
HERE: JsonObject = {"repo_path": "handbook"}
pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]


def test_the_page_leads_to_a_commit_that_a_person_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and command as it stands there, in its order; then what its table says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{peers.install('servers') / 'bin'}:{os.environ['PATH']}")
    done("init", ".")
    steps = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    said = []
    for kind, text in steps[:-1]:
        if kind == "sh":
            said += [_ran(line) for line in text.splitlines()]
        else:
            write(tmp_path, text)
    repository = tmp_path / "handbook"
    (repository / "hours.txt").write_text("9 to 5")
    git(repository, "add", "hours.txt")
    with Server(tmp_path) as server:
        agents, persons = (_ran(line) for line in steps[-1][1].splitlines())
        monkeypatch.setenv("INTERLOCK_AGENT_KEY", agents)
        seat = Seat(url=server.url, token=done("token", "mint"))
        status = seat.call("git.status.call", HERE)
        elsewhere = seat.call("git.status.call", {"repo_path": "/etc"})
        asked = seat.call("git.commit.call", {**HERE, "message": "Add opening hours"})
        approve(persons)
        made = seat.ended(asked)

    assert 12 == said[3].count("wrote tools/")
    assert "new file:   hours.txt" in text_of(status)
    assert text_of(elsewhere) in PAGE
    assert text_of(asked).partition(".")[0] in PAGE
    assert git(repository, "rev-parse", "HEAD") in text_of(made)
    assert "Add opening hours" == git(repository, "log", "--format=%s")


def _ran(line: str) -> str:
    """Run a command of the page and return what it printed."""
    program, *arguments = shlex.split(line)
    if program == "interlock":
        return done(*arguments)
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
