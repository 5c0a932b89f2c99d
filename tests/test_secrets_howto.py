"""The howto about credentials, run as it stands on the project of the demonstration."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "secrets.md").read_text("utf-8")


def test_the_page_leads_from_the_first_value_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command as it stands there, in its order; no value is printed."""
    shutil.copytree(ROOT / "examples" / "service_desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    done("apply", "--yes")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]

    said = [interlock(*shlex.split(one)[1:], given="canary-of-the-page\n") for one in commands]

    assert [0] * 5 == [one.code for one in said]
    stored, listed, rotated, rekeyed, removed = (one.out for one in said)
    assert "stored version 1\n" == stored
    assert "secret://servicedesk/dev/triage-bot" in listed
    assert "service_desk/" in listed
    assert "stored version 2; the one before is accepted for 24h\n" == rotated
    assert rekeyed.startswith("2 sealed with a new key")
    assert "removed\n" == removed
    assert "canary" not in "".join(one.out + one.err for one in said)
