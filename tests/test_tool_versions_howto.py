"""The howto about versions of tools, run as it stands: tried in dev, released to prod, and back."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock
from tests.runtime.registry.bench import listener

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "tool-versions.md").read_text("utf-8")
AROUND = """
interlock: v1
kind: Project
name: notes
title: Notes
include: [defaults]
teams: [platform, security, desk]
---
interlock: v1
kind: System
name: notes
title: Notes
owner: platform
---
interlock: v1
kind: Server
name: notes-prod
system: notes
environment: prod
protocol: http
url: https://notes.example
---
interlock: v1
kind: Server
name: notes-dev
system: notes
environment: dev
protocol: http
url: {url}
---
interlock: v1
kind: Workflow
name: keep
version: 1
title: Keep a note
owner: desk
department: it
triggers:
  start: {{manual: true, environment: dev}}
inputs: {{type: object, additionalProperties: false}}
agents: {{}}
tools: [notes.note.add]
steps:
  - {{name: keep, tool: notes.note.add, args: {{text: hello}}}}
approvals: []
fallbacks:
  - {{code: "*", then: stop}}
success: {{end_state: done, counts: [done], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: 2, by: platform, reason: tests}}}}
"""
GRANT = """
@id("notes-may-be-kept") @owner("platform") @why("Notes are kept")
permit (principal, action in Action::"write", resource in System::"notes");
"""


def run(block: str) -> list[str]:
    """Run the commands of a block as they stand and return what each printed."""
    return [done(*shlex.split(line)[1:]) for line in block.splitlines()]


def live() -> dict[str, str]:
    """Return which version each environment has, as the list of the registry says."""
    lines = [line.split() for line in done("tool", "list", "--grants").splitlines()[1:]]
    return {line[2]: line[1] for line in lines}


def apply_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply as a second owner."""
    key = interlock("key", "create", "bob", "--role", "owner").out.strip()
    with monkeypatch.context() as as_bob:
        as_bob.setenv("INTERLOCK_TOKEN", key)
        done("apply", "--yes")


def test_the_page_leads_to_another_version_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and each command as it stands there, in its order."""
    monkeypatch.chdir(tmp_path)
    files = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    first, second = files
    [goodbye] = re.findall(r"^```yaml\n(deprecated: .*?\n)```", PAGE, re.MULTILINE)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for folder in ("tools", "policies/grants"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "policies/grants/notes.cedar").write_text(GRANT)
    (tmp_path / "note.json").write_text('{"text": "hello", "heading": "greetings"}')
    (tmp_path / first).write_text(files[first])
    with listener() as (url, _):
        (tmp_path / "project.yaml").write_text(AROUND.format(url=url))
        done("apply", "--yes")
        (tmp_path / second).write_text(files[second])

        planned, _, _, difference = run(blocks[0])
        in_dev = live()
        [tested] = run(blocks[1])
        released, moved = run(blocks[2].rpartition("interlock apply")[0])
        asked, still = interlock("apply", "--yes"), live()
        apply_as_another(monkeypatch)
        in_both = live()
        back, _ = run(blocks[3])
        in_the_end = live()
        with (tmp_path / first).open("a") as file:
            file.write(goodbye)
        parting, _, shown = run(blocks[4])

    assert "~ version of tool notes.note.add in dev" in planned
    assert "called by `keep` of `desk`" in planned
    assert '"heading"' in difference
    assert {"dev": "2", "prod": "1"} == in_dev
    assert '"heading": "greetings"' in tested
    assert "notes.note.add in prod: version 1 -> 2" in released
    assert "ask `desk`, whose workflow `keep` calls it" in released
    assert "~ version of tool notes.note.add in prod" in moved
    assert (1, {"dev": "2", "prod": "1"}) == (asked.code, still)
    assert {"dev": "2", "prod": "2"} == in_both
    assert "notes.note.add in prod: version 2 -> 1" in back
    assert {"dev": "2", "prod": "1"} == in_the_end
    assert "Deprecated and still called\n  notes.note.add@1 in prod until 2999-12-31" in parting
    assert "v1 since 2026-11-01 until 2999-12-31: notes want headings" in shown
    text = (tmp_path / second).read_text()
    assert "dev: {server: notes-dev}  # tried here first" in text
    assert "prod: {server: notes-prod, past: true}" in text
    assert "is live in `prod`" in done("tool", "release", "notes.note.add@1", "--env", "prod")
    refused = interlock("tool", "release", "notes.note.add@3", "--env", "prod").refusal
    assert "it has the versions 1, 2" in refused[1]
    assert (
        "there is no environment `test`; take dev, stage, prod"
        in (interlock("tool", "release", "notes.note.add@2", "--env", "test").refusal[1])
    )
