"""The howto about an existing MCP server, run as it stands, up to a call that people approve."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Server, done, interlock

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "mcp-server.md").read_text("utf-8")
pytestmark = pytest.mark.timeout(180)


def blocks() -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each block of the page, in their order."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def write(folder: Path, text: str) -> None:
    """Write the file that the first line of a block names."""
    name = text.partition("\n")[0].lstrip("#/ ")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # The server is started by this interpreter, which has what it imports.
    path.write_text(text.replace("[python3, notes.py]", f"[{sys.executable}, notes.py]"))


def test_the_page_leads_from_a_server_to_a_call_that_people_approve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and command as it stands there, in its order."""
    monkeypatch.chdir(tmp_path)
    done("init", ".")
    steps = [*blocks()]
    first = next(n for n, (_, text) in enumerate(steps) if "key create" in text)
    said = _followed(tmp_path, steps[:first])
    with Server(tmp_path) as server:
        (made,) = steps[first][1].splitlines()
        key = interlock(*shlex.split(made)[1:]).out.strip()
        monkeypatch.setenv("INTERLOCK_AGENT_KEY", key)
        _followed(tmp_path, steps[first + 1 : first + 2])
        heard = _agent(server.url, done("token", "mint"))
        asked, sessions = _followed(tmp_path, steps[first + 2 :])

    imported, planned, _applied = said
    assert "wrote tools/notes.add.call.yaml" in imported
    assert "+ workflow notes" in planned
    assert "['notes__add__call', 'notes__find__call', 'interlock__result']" == heard[0]
    assert heard[2].startswith("pending: people are asked")
    assert "Keep a note" in asked
    assert "waiting" in sessions or "running" in sessions


def _followed(folder: Path, steps: list[tuple[str, str]]) -> list[str]:
    """Write the files and run the commands of some blocks; return what the commands said."""
    said = []
    for kind, text in steps:
        if kind == "sh":
            said += [done(*shlex.split(line)[1:]) for line in text.splitlines()]
        else:
            write(folder, text)
    return said


def _agent(url: str, token: str) -> list[str]:
    """Run the agent of the page and return what it printed."""
    agent = subprocess.run(
        [sys.executable, "agent.py"],
        env={**os.environ, "INTERLOCK_URL": url, "SESSION_TOKEN": token},
        capture_output=True,
        text=True,
        check=True,
    )
    return agent.stdout.splitlines()
