"""The howto about a first policy, run as it stands on the project of the demonstration."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import done, interlock

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "first-policy.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
POLICY, TESTS = (
    "policies/approvals/critical.cedar",
    "policies/tests/tickets.yaml",
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, applied, with the two files of the page."""
    desk = tmp_path / "desk"
    shutil.copytree(ROOT / "examples" / "service_desk", desk)
    monkeypatch.chdir(desk)
    done("apply", "--yes")
    for path in (POLICY, TESTS):
        block = rf"(?ms)^```\w*\n(?://|#) {path}\n(.*?)^```"
        (text,) = re.findall(block, PAGE)
        (desk / path).parent.mkdir(parents=True, exist_ok=True)
        (desk / path).write_text(text)
    return desk


def test_the_page_leads_to_a_policy_in_force(desk: Path) -> None:
    """Each command as it stands there; only that call needs a person, and only of that seat."""
    check, tests, plan, backtest, _, now = (done(*command) for command in COMMANDS)

    assert (desk / POLICY).is_file()
    assert check.endswith("policy files mean what they say")
    assert tests.endswith("5 of 5 hold")
    assert '"priority":"critical"' in plan
    assert "unattended -> approved by it-service-desk" in plan
    assert "Seats may do more" not in plan
    assert "0 decisions since" in backtest
    assert "critical-is-seen" in now
    assert "approved by it-service-desk" in now
    assert "No changes to release 2." in done("plan")


def test_without_the_policy_its_tests_fail_with_what_happens(desk: Path) -> None:
    """The two that do not need it still hold; the exit code stops a build."""
    (desk / POLICY).unlink()
    said = interlock(*COMMANDS[1])
    as_json = interlock(*COMMANDS[1], "--json").json["tests"]

    assert 1 == said.code
    assert "✗ a person looks before a ticket becomes critical\n    fails: it is allow" in said.out
    assert "4 of 5 hold" in said.out
    assert isinstance(as_json, list)
    assert ["fails", "holds", "holds", "holds", "holds"] == [
        test["verdict"] for test in as_json if isinstance(test, dict)
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "kind: PolicyTests",
            "kind: Tests",
            "policies/tests/tickets.yaml:1: a file of tests begins",
        ),
        ("    expect: deny", "    expect: maybe", "expect"),
        ("    env: dev", "    env: test", "env"),
        ("can: egress", "cna: egress", "`can` says what"),
        ("as: service_desk/classifier", "as: nobody", "nobody"),
        ("unattended: true,", "unattended: sometimes,", "unattended"),
    ],
)
def test_what_is_no_test_is_told_with_its_line(desk: Path, old: str, new: str, told: str) -> None:
    """Nothing is run before all tests can be read."""
    text = (desk / TESTS).read_text()
    (desk / TESTS).write_text(text.replace(old, new, 1))
    said = interlock(*COMMANDS[1])

    assert old in text
    assert (1, "") == (said.code, said.out)
    assert "policies/tests/tickets.yaml:" in said.err
    assert told in said.err


def test_no_tests_are_no_success(desk: Path) -> None:
    """A build that tests nothing must not be green."""
    (desk / TESTS).unlink()

    assert "there are no tests in `" in interlock(*COMMANDS[1]).refusal[1]
