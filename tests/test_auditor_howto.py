"""The howto about an auditor's questions, run as it stands on calls that people approved."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.cli.terminal import Server, approve, done, interlock, listed, until

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "answer-an-auditor.md").read_text("utf-8")
GUARD = """@id("not-x") @why("Items are not called X")
forbid (principal, action == Action::"%s", resource) when { context.args.text == "X" };
"""


def asked(call: str) -> list[list[str]]:
    """Return the commands of the page, about the system and the workflow of this test."""
    names = {"servicedesk": "recorder", "service_desk": WORKFLOW_OF["keyed"], "CALL": call}
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    return [[names.get(word, word) for word in line] for line in lines]


def test_the_page_answers_each_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two releases, one call that Dana approved, and who holds keys."""
    with Recorder(tmp_path / "tool") as tool:
        texts = files(tool.url, approve=True) | {"input.json": '{"text": "hello"}'}
        for path, text in texts.items():
            (tmp_path / "desk" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "desk" / path).write_text(text)
        monkeypatch.chdir(tmp_path / "desk")
        with Server(tmp_path / "desk"):
            done("apply", "--yes")
            rights = ("--role", "viewer", "--role", "approver", "--group", "data-owners")
            dana = interlock("key", "create", "dana", *rights).out.strip()
            run_id = done("run", "start", WORKFLOW_OF["keyed"], "--input", "input.json")
            until(lambda: len(listed("approval", "list")) == 1)
            approve(dana)
            done("run", "watch", run_id, "--timeout", "60")
            guard = tmp_path / "desk" / "policies" / "guardrails" / "names.cedar"
            guard.parent.mkdir(exist_ok=True)
            guard.write_text(GUARD % TOOL_OF["keyed"])
            done("apply", "--yes")
            (effect,) = listed("effect", "list")

            unused = done("can", "--unused", f"{WORKFLOW_OF['keyed']}/workflow")
            now, since, effects, call, explained, keys = (
                done(*command) for command in asked(str(effect["effect_id"]))
            )

    assert f"{WORKFLOW_OF['keyed']}/workflow" in now
    assert "approved by data-owners" in now
    assert "release 2 " in since
    assert "applied by " in since
    assert f"- {WORKFLOW_OF['keyed']}/workflow  {TOOL_OF['keyed']}  dev: " in since
    assert 'for instance with {"text":"X"}' in since
    assert "release 1 " not in since
    assert str(effect["effect_id"]) in effects
    assert "approved by dana" in call
    assert "agreed by            data-owners" in explained
    assert "policy version" in explained
    assert "dana" in keys
    assert TOOL_OF["keyed"] not in unused


def test_history_is_only_what_was_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By system, tool and environment; nothing is said in a sentence too."""
    for path, text in files("http://127.0.0.1:9").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    done("apply", "--yes")
    before = done("who-can", "write", "--since", "1h")
    (tmp_path / "policies" / "guardrails").mkdir(exist_ok=True)
    (tmp_path / "policies" / "guardrails" / "x.cedar").write_text(GUARD % TOOL_OF["keyed"])
    done("apply", "--yes")

    def told(*more: str) -> str:
        return done("who-can", "write", "--since", "1h", *more)

    rows = interlock("who-can", "write", "--since", "1h", "--json").json["releases"]
    assert before.startswith("nothing has changed since ")
    assert TOOL_OF["keyed"] in told("--tool", TOOL_OF["keyed"], "--env", "dev")
    assert told("--tool", TOOL_OF["probed"]).startswith("nothing has changed since ")
    assert told("--env", "prod").startswith("nothing has changed since ")
    assert isinstance(rows, list)
    assert [2] == [row["number"] for row in rows if isinstance(row, dict)]
