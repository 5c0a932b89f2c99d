"""The howto about changed tools, run as it stands: found, shown, pinned, lifted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from interlock.tools.upstream import pin_of
from tests.cli.terminal import done
from tests.runtime.mcp_project import OFFERED, files, offer

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "changed-tool.md").read_text("utf-8")


def test_the_page_leads_from_a_change_to_a_tool_that_is_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command as it stands there, in its order."""
    monkeypatch.chdir(tmp_path)
    path = offer(tmp_path, OFFERED)
    for name, text in files(path, pin=str(pin_of(OFFERED))).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done("apply", "--yes")
    offer(tmp_path, {**OFFERED, "description": "Write a long note"})
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]

    said = [done(*shlex.split(command)[1:]) for command in commands]

    assert 5 == len(said)
    checked, pinned, planned, _, again = said
    assert '+  "description": "Write a long note"' in checked
    assert "wrote version 2 of `files.note.write`" in pinned
    assert "~ tool files.note.write" in planned
    assert ("same" in again, "changed" in again) == (True, False)
