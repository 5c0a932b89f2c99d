"""The howto about two people, run as it stands on a project whose tools are in `prod`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from interlock.testing.recorder_project import files
from tests.cli.terminal import done, interlock

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "two-people.md").read_text("utf-8")
PLAN, APPLY, KEY = (
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
)
GUARD = Path("policies") / "guardrails" / "none.cedar"
NOTHING = """@id("nothing") @why("Nothing for now")
forbid (principal, action in Action::"write", resource);
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in `prod` that was applied, without any right to write."""
    for path, text in files("http://127.0.0.1:9", level=0).items():
        place = tmp_path / path.replace("recorder-dev", "recorder-prod")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(re.sub(r"\bdev\b", "prod", text).replace("recorder-dev", "recorder-prod"))
    (tmp_path / GUARD).parent.mkdir(exist_ok=True)
    (tmp_path / GUARD).write_text(NOTHING)
    monkeypatch.chdir(tmp_path)
    done(*APPLY)
    return tmp_path


def key(name: str) -> str:
    """Return the key of another owner."""
    return interlock(*[name if word == "bob" else word for word in KEY]).out.strip()


def test_the_page_takes_two_people(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One person alone changes nothing, however often they ask; the second makes it live."""
    (folder / GUARD).unlink()
    bob = key("bob")

    planned = done(*PLAN)
    first, again = interlock(*APPLY), interlock(*APPLY)
    alone = done(*PLAN)
    monkeypatch.setenv("INTERLOCK_TOKEN", bob)
    second = interlock(*APPLY)

    assert planned.endswith("it is applied once two people have asked for it.")
    assert "Seats may do more" in planned
    assert (1, 1) == (first.code, again.code)
    assert "not applied yet: `" in first.err
    assert "the same command on the same files within a day" in first.err
    assert planned == alone
    assert (0, "release 2 is live") == (second.code, second.out.splitlines()[-1])
    assert "No changes to release 2." == done(*PLAN)


def test_another_difference_takes_two_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the second person has is not what the first one asked for."""
    (folder / GUARD).unlink()
    bob = key("bob")
    interlock(*APPLY)
    monkeypatch.setenv("INTERLOCK_TOKEN", bob)
    (folder / GUARD).write_text(NOTHING.replace("write", "destructive"))
    other = interlock(*APPLY)

    assert 1 == other.code
    assert "not applied yet: `bob` has asked for it" in other.err


def test_what_narrows_takes_one(folder: Path) -> None:
    """To take rights away must be quick."""
    (folder / GUARD).write_text(
        NOTHING + NOTHING.replace("nothing", "reads").replace("write", "read")
    )

    assert "release 2 is live" == done(*APPLY).splitlines()[-1]
