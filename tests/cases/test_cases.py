"""Policies tested as data: a folder holds policy files and the calls that they decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Facts, Outcome, PolicyRequest
from interlock.domain.ids import ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.record import from_json
from interlock.domain.release import PolicyFile
from interlock.policy.engine import build_world
from tests.policy.project import MODELS, release

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a case says of its run; what it does not name takes safe values."""

    labels: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    untrusted: bool = False
    done: frozenset[str] = frozenset()
    same_key_count: int = 0

    def facts(self) -> Facts:
        """Return them as policy reads them."""
        labels = Labels(names=self.labels, tenants=self.tenants, is_untrusted=self.untrusted)
        return Facts(labels=labels, done=self.done, same_key_count=self.same_key_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool and its arguments."""

    tool: ToolName
    args: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call and what it is expected to come to.

    `seats` is the chain, outermost first; `by` are the ids of the policies that determine it.
    """

    name: str
    seats: tuple[str, ...]
    call: Call
    expect: Outcome
    run: RunFacts = RunFacts()
    lifted: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """One folder's `cases.yaml`: the level of all seats, and the cases."""

    autonomy: int
    cases: tuple[Case, ...]


def read_folder(folder: Path) -> CaseFile:
    """Read the cases of a folder."""
    return from_json(CaseFile, YAML(typ="safe").load((folder / "cases.yaml").read_text()))


def parameters() -> list[object]:
    """Return every case of every folder, named `<folder>: <case>`."""
    return [
        pytest.param(path.parent, case, id=f"{path.parent.name}: {case.name}")
        for path in sorted(FOLDER.glob("*/cases.yaml"))
        for case in read_folder(path.parent).cases
    ]


@pytest.mark.parametrize(("folder", "case"), parameters())
def test_case_is_decided_as_expected(folder: Path, case: Case) -> None:
    """Beside the default policies, the folder's own ones decide as the file says."""
    files = tuple(
        PolicyFile(path=path.relative_to(folder).as_posix(), text=path.read_text())
        for path in sorted(folder.rglob("*.cedar"))
    )
    project = release(*files, autonomy=read_folder(folder).autonomy)
    request = PolicyRequest(
        seats=tuple(Seat.parse(seat) for seat in case.seats),
        environment="prod",
        tool=case.call.tool,
        arguments=case.call.args,
        facts=case.run.facts(),
        lifted=case.lifted,
    )

    decision = build_world(project, "prod", models=MODELS).decide(request)

    assert (case.expect, case.groups, case.by) == (
        decision.outcome,
        decision.groups,
        decision.policy_ids,
    )
