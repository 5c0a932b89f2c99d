"""The howto about who can do what, run as it stands on the project of the demonstration."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "who-can.md").read_text("utf-8")


def test_the_page_asks_from_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command as it stands there; all answers are exact."""
    shutil.copytree(ROOT / "examples" / "service_desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    done("apply", "--yes")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]

    writers, seat, names, grant, unused, _, _ = (
        done(*shlex.split(command)[1:]) for command in commands
    )

    assert "service_desk/resolver" in writers
    assert "approved by finance-data-owners" in writers
    assert "waiting_tickets" not in writers
    assert "servicedesk.issue.show" in seat
    assert "servicedesk.issue.show" in names.splitlines()
    assert 'with {"share":"finance"}' in grant
    assert unused.splitlines()[1].split()[:4] == [
        "service_desk/resolver",
        "mail.message.send",
        "dev",
        "write",
    ]
    assert "read" == unused.splitlines()[-1].split()[3]
    assert "perhaps" not in writers + seat + grant


def test_the_page_asks_what_a_change_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more domain for mail is one wider right, with its address; less stops no build."""
    shutil.copytree(ROOT / "examples" / "service_desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    done("apply", "--yes")
    policy = tmp_path / "desk" / "policies" / "guardrails" / "mail.cedar"
    domain = 'context.derived.recipient_domain == "desk.example"'
    command = re.findall(r"^interlock (plan --\S+)", PAGE, re.MULTILINE)[0].split()
    written = policy.read_text()

    policy.write_text(written.replace(domain, domain.replace("desk", "partner") + f" || {domain}"))
    more = interlock(*command)
    policy.write_text(written.replace(domain, f"{domain} && !context.untrusted"))
    less = interlock(*command)
    policy.write_text(written.replace("no ticket can change that", "tickets cannot change that"))
    same = interlock(*command)

    assert (1, 0, 0) == (more.code, less.code, same.code)
    assert "+ service_desk/resolver  mail.message.send  dev: never -> " in more.out
    assert 'for instance with {"to":"a@partner.example"}' in more.out
    assert "- service_desk/resolver  mail.message.send  dev: " in less.out
    assert "Seats may do" not in same.out
    assert "perhaps" not in more.out + less.out
