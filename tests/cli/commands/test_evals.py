from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from interlock.cli.main import app

Terminal = Callable[..., Result]

PROJECT = Path(__file__).resolve().parents[3] / "examples" / "service_desk"
TRIAGE = PROJECT / "suites" / "triage"
CASE = "broken-projector-is-routed"

# Each run starts a tracker, a mail service, a model and an installation.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Runs commands in this process, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A copy of the triage suite with its first case only."""
    folder = tmp_path / "triage"
    shutil.copytree(TRIAGE, folder)
    file = folder / "suite.yaml"
    text = file.read_text().replace("../..", os.path.relpath(PROJECT, folder.resolve()))
    first, second = [found.start() for found in re.finditer(r"^  - id: ", text, re.MULTILINE)][:2]
    assert text[first:second].startswith(f"  - id: {CASE}")
    file.write_text(text[:second])
    return folder


def change(suite: Path, old: str, new: str) -> None:
    """Replace a text that the suite's file has."""
    file = suite / "suite.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_suite_that_passes_is_stored_and_shown(suite: Path, tmp_path: Path) -> None:
    """Exit code 0, a table for people, and the same result again from the store."""
    change(suite, "repeats: 2", "repeats: 1")

    ran = interlock(tmp_path, "run", str(suite))

    shown = interlock(tmp_path, "show", "service-desk-triage", "--json")
    stored = json.loads(shown.stdout)
    assert (0, f"pass      {CASE}\n") == (ran.returncode, ran.stderr)
    assert re.search(rf"{CASE} +pass +1/1 +7 ", ran.stdout)
    assert "service-desk-triage: pass, 1 of 1 cases" in ran.stdout
    assert ("pass", 0) == (stored["verdict"], stored["release"])
    assert {"unsafe": 0, "duplicates": 0, "unrecorded": 0} == stored["body"]["zero_gates"]


def test_suite_that_fails_says_what_and_exits_with_1(suite: Path, terminal: Terminal) -> None:
    """Every station that failed is told; what only a part of the suite says is not stored."""
    change(suite, "outcome: routed", "outcome: answered")
    change(suite, "count: 6", "count: 5")

    ran = terminal("run", suite, "--repeats", 1)

    assert 1 == ran.exit_code
    assert re.search(rf"{CASE} +fail +0/1 .* world", ran.stdout)
    assert f"{CASE}: world: `tracker:/issues` has 6 items, expected 5" in ran.stdout
    assert f"{CASE}: end: a run ended as `routed`, expected `answered`" in ran.stdout
    assert "not stored, as only a part of the suite was run" in ran.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("repeats: 2", "repeat: 2", "suite.yaml:7: unknown key `repeat`"),
        ("workflow: service_desk", "workflow: other", "the project has no workflow `other`"),
        ("server: tracker-dev", "server: nowhere", "the project has no server `nowhere`"),
        ("init,", "initialise,", "the preparation of `tracker` failed with 2"),
    ],
)
def test_suite_that_cannot_be_run_exits_with_3(
    suite: Path, terminal: Terminal, old: str, new: str, message: str
) -> None:
    """An error is no verdict: it has an exit code of its own, and one sentence says why."""
    change(suite, old, new)

    ran = terminal("run", suite, "--repeats", 1)

    assert 3 == ran.exit_code
    assert message in ran.output


def test_unknown_case_exits_with_3(suite: Path, terminal: Terminal) -> None:
    """A case that is misspelt is an error, before anything is started."""
    ran = terminal("run", suite, "--case", "nope")

    assert (3, "error: the suite `service-desk-triage` has no case `nope`\n") == (
        ran.exit_code,
        ran.stderr,
    )


def test_absent_suite_exits_with_3(terminal: Terminal) -> None:
    """A folder without a suite is an error that names the file."""
    ran = terminal("run", "nope")

    assert 3 == ran.exit_code
    assert "suite.yaml: cannot be read: No such file or directory" in ran.stderr


def test_suite_without_a_result_is_not_found(terminal: Terminal) -> None:
    """There is nothing to show of a suite that never ran here."""
    shown = terminal("show", "nope")

    assert (1, "error: there is no result of a suite `nope`\n") == (
        shown.exit_code,
        shown.stderr,
    )


def interlock(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder of its own."""
    command = [str(Path(sys.executable).with_name("interlock")), "eval", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
