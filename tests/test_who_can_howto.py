"""The howto about who can do what, run as it stands on the project of the demonstration."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import done

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "who-can.md").read_text("utf-8")


def test_the_page_asks_from_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command as it stands there; all answers are exact."""
    shutil.copytree(ROOT / "examples" / "service_desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    done("apply", "--yes")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]

    writers, seat, names, grant = (done(*shlex.split(command)[1:]) for command in commands)

    assert "service_desk/resolver" in writers
    assert "approved by finance-data-owners" in writers
    assert "waiting_tickets" not in writers
    assert "servicedesk.issue.show" in seat
    assert "servicedesk.issue.show" in names.splitlines()
    assert 'with {"share":"finance"}' in grant
    assert "perhaps" not in writers + seat + grant
