"""The howto about back-tests, run as it stands on a project that has made calls."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.cli.terminal import Server, done, interlock, listed

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "backtest.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
WATCHED = PAGE.partition("## Watch before it counts")[2].split("```")[1]
(RULE,) = re.findall(r"^```cedar\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a server, whose mails are the writes of a recording server: two were sent."""
    with Recorder(tmp_path / "tool") as tool:
        for path, text in files(tool.url).items():
            (tmp_path / "desk" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "desk" / path).write_text(text)
        (tmp_path / "desk" / "input.json").write_text('{"text": "hello"}')
        monkeypatch.chdir(tmp_path / "desk")
        with Server(tmp_path / "desk"):
            done("apply", "--yes")
            for effect_class in ("keyed", "keyed", "read"):
                run_id = done("run", "start", WORKFLOW_OF[effect_class], "--input", "input.json")
                done("run", "watch", run_id, "--timeout", "60")
            yield tmp_path / "desk"


def test_the_page_tries_a_rule_on_the_calls_that_were_made(desk: Path) -> None:
    """The rule of the page, for the tool of the test: held back by it, and nothing else."""
    shutil.copytree(desk, desk.parent / "candidate", ignore=shutil.ignore_patterns(".interlock"))
    rule = RULE.replace("mail.message.send", TOOL_OF["keyed"]).replace("security", "data-owners")
    policy = desk.parent / "candidate" / "policies" / "approvals" / "mail.cedar"
    policy.parent.mkdir(exist_ok=True)
    policy.write_text(rule)

    held = done(*COMMANDS[0])
    allowed = interlock(*COMMANDS[1])
    done("apply", "../candidate", "--yes")
    shutil.copytree(desk, desk.parent / "back", ignore=shutil.ignore_patterns(".interlock"))
    widened = interlock(*[word.replace("../candidate", "../back") for word in COMMANDS[1]])

    assert "3 decisions since " in held
    assert "- 2 calls of 2 runs: unattended -> approved by data-owners  by mail-is-read" in held
    assert f"      {TOOL_OF['keyed']}: " in held
    assert "1 are decided as now" in held
    assert "Would be let through" not in held
    assert "Seats may do less" in held
    assert 0 == allowed.code
    assert 1 == widened.code
    assert "+ 2 calls of 2 runs: approved by data-owners -> unattended" in widened.out
    assert "2 were answered in another way when they were made" in widened.out


def test_the_page_watches_a_rule_before_it_counts(desk: Path) -> None:
    """The call is made, the rule is told of; to enforce it is no wider right, to stop that is."""
    policy = desk / "policies" / "approvals" / "mail.cedar"
    policy.parent.mkdir(exist_ok=True)
    rule = WATCHED.replace("mail.message.send", TOOL_OF["keyed"]).replace("security", "data-owners")
    policy.write_text(rule)
    done("apply", "--yes")
    run_id = done("run", "start", WORKFLOW_OF["keyed"], "--input", "input.json")
    done("run", "watch", run_id, "--timeout", "60")
    (effect,) = [row for row in listed("effect", "list") if row["run_id"] == run_id]

    told = done(*COMMANDS[2])
    explained = done("policy", "explain", str(effect["effect_id"]))
    policy.write_text(rule.replace('@mode("observe") ', ""))
    enforced = done("plan")
    done("apply", "--yes")
    policy.write_text(rule)
    watched = done("plan")

    assert ["mail-is-read", "1", "1", "1"] == told.splitlines()[1].split()[:4]
    assert str(effect["effect_id"]) in told
    assert "  observed mail-is-read: Somebody reads each mail" in explained
    assert "Seats may do less" in enforced
    assert "Seats may do more" not in enforced
    assert "Seats may do more" in watched


def test_unknown_time_and_broken_folder_are_told_in_a_sentence(desk: Path) -> None:
    """Before anything is decided."""
    told = interlock(*COMMANDS[0][:2], "--since", "long ago").refusal
    (desk / "policies" / "grants" / "recorder.cedar").write_text("permit (principal")
    broken = interlock(*COMMANDS[0][:2])

    assert (1, True) == (told[0], "a time span is like 90s, 15m, 1h or 7d" in told[1])
    assert 1 == broken.code
    assert "policies/grants/recorder.cedar" in broken.err
