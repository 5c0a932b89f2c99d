"""The howto about budgets, run as it stands on a project whose calls cost something."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.cli.terminal import Server, done, interlock, listed, until

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "budgets.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
(BUDGET,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(RULE,) = re.findall(r"^```cedar\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PATH = BUDGET.splitlines()[0].removeprefix("# ")
PRICE = 60_000_000


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a server, one tool of which costs 60 dollars a call."""
    with Recorder(tmp_path / "tool") as tool:
        texts = files(tool.url)
        priced = f"tools/{TOOL_OF['keyed']}.yaml"
        texts[priced] += f"\nprice_micro_usd: {PRICE}\n"
        texts |= {PATH: BUDGET}
        texts["project.yaml"] = texts["project.yaml"].replace("teams: [", "teams: [it-leads, ")
        for path, text in texts.items():
            (tmp_path / "desk" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "desk" / path).write_text(text)
        (tmp_path / "desk" / "input.json").write_text('{"text": "hello"}')
        monkeypatch.chdir(tmp_path / "desk")
        with Server(tmp_path / "desk"):
            yield tmp_path / "desk"


def call() -> str:
    """Run the workflow that makes one priced call; return how its effect stands in the end."""
    run_id = done("run", "start", WORKFLOW_OF["keyed"], "--input", "input.json")
    until(lambda: state_of(run_id) in {"succeeded", "denied", "proposed"})
    return state_of(run_id)


def state_of(run_id: str) -> str:
    """Return the state of a run's one effect, or nothing as long as it has none."""
    found = [row["state"] for row in listed("effect", "list") if row["run_id"] == run_id]
    return str(found[0]) if found else ""


def test_the_page_bounds_what_is_spent(desk: Path) -> None:
    """Three calls fit into the page's 200 dollars, the fourth does not; the doctor says so."""
    planned, _, budgets, fresh = (done(*command) for command in COMMANDS)
    states = [call() for _ in range(4)]
    shown, told = done(*COMMANDS[3]), interlock("doctor")
    (desk / PATH).write_text(BUDGET.replace("limit: 200000000", "limit: 300000000"))
    raised = done("plan")
    done("apply", "--yes")

    assert "budget money_of_it" in planned
    assert "money_of_it" in budgets
    assert ["it", "0", "0", "200000000", "0"] == fresh.splitlines()[2].split()[:5]
    assert ["succeeded"] * 3 + ["denied"] == states
    assert ["it", "180000000", "0", "20000000"] == shown.splitlines()[2].split()[:4]
    assert "over its soft limit" in shown
    assert "`money_of_it` has 20000000 of 200000000 micro_usd left" in told.out
    assert 1 == told.code
    assert "limit: 200000000 -> 300000000" in raised.partition("Rights and risks")[2]
    assert "succeeded" == call()


def test_the_page_asks_people_before_nothing_is_left(desk: Path) -> None:
    """Its rule holds back the call that would otherwise be made."""
    rule = desk / "policies" / "approvals" / "budget.cedar"
    rule.parent.mkdir(exist_ok=True)
    rule.write_text(RULE.replace("20000000", "100000000"))
    done("apply", "--yes")

    states = [call() for _ in range(3)]

    assert ["succeeded", "succeeded", "proposed"] == states
