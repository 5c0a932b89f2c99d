"""A plane whose workflows climb the autonomy ladder in `prod`, where its tools answer as told."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interlock.calls import approve
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import EffectId, RunId, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.tool import Environment
from interlock.manifest import apply
from interlock.runtime.registry import ladder as climb
from interlock.runtime.registry.ladder import Evidence, Promotion
from interlock.runtime.triggers import start_manual
from interlock.store import approvals, results
from interlock.testing.recorder_project import WORKFLOW_OF
from tests.calls.call_bench import CallBench
from tests.road_bench import DANA

KEYED = WorkflowName(WORKFLOW_OF["keyed"])
PROD: Environment = "prod"
DAY_S = 86_400
BARS = """
autonomy:
  to_1: {count: 3, agreement: 0.4}
  to_2: {count: 3, agreement: 0.4, days: 14}
  to_3: {count: 3, agreement: 0.2}
"""


def person(name: str, *groups: str) -> Principal:
    """Return an owner who may also approve."""
    roles = frozenset({Role.OWNER, Role.APPROVER, Role.OPERATOR})
    kind = PrincipalKind.USER
    return Principal(name=name, kind=kind, roles=roles, groups=frozenset({"platform", *groups}))


ANN, BOB, SUE = person("ann"), person("bob"), person("sue", "security")


class Ladder(CallBench):
    """The project of the recording server in `prod`, with low bars; nothing is reached there."""

    def __init__(self, url: str, *, bars: str = BARS) -> None:
        self.bars = bars
        super().__init__(url, level=0)

    def apply(self, project: Mapping[str, str]) -> None:
        """Apply a project, moved to `prod`."""
        super().apply(self.moved(project, self.bars))
        self.project = dict(project)

    def moved(self, project: Mapping[str, str], bars: str) -> dict[str, str]:
        """Return a project as it is in `prod`."""
        moved = {path: re.sub(r"\bdev\b", PROD, text) for path, text in project.items()}
        return moved | {"project.yaml": moved["project.yaml"] + bars}

    def plan(self, bars: str) -> tuple[str, bool]:
        """Return the one change that other bars make: its name, and whether it widens."""
        (change,) = apply.plan(self.db, self.moved(self.project, bars)).diff.changes
        return change.name, change.is_widening

    def start(self, workflow: str, value: JsonObject, *, key: str | None = None) -> RunId:
        """Accept a run in `prod`."""
        accepted = start_manual(
            self.intake,
            WorkflowName(workflow),
            environment=PROD,
            value=value,
            by="ops",
            tenant=DEFAULT_TENANT,
            key=key,
        )
        assert accepted.run_id is not None
        return accepted.run_id

    @property
    def level(self) -> int:
        """The level of the workflow that makes a keyed call."""
        with self.db.reading() as tx:
            return self.road.live.at(tx).release.level(KEYED, PROD)

    def found(self) -> Evidence:
        """Return what that workflow has shown."""
        with self.db.reading() as tx:
            return climb.evidence_of(tx, self.road.live.at(tx).release, KEYED, PROD)

    def calls(self, count: int) -> list[EffectId]:
        """Let the workflow write so often, as far as each call gets at once."""
        return [self.one(self.call("keyed", text=f"{n}")).effect_id for n in range(count)]

    def judge(self, verdict: str = "pass", suite: str = "golden") -> None:
        """Store what a suite says of what acts now."""
        versions = (self.found().versions,)
        self.db.run(
            "result",
            lambda tx: results.put_result(
                tx,
                suite=suite,
                suite_digest="d",
                release=1,
                body={},
                verdict=verdict,
                workflow=KEYED,
                versions=versions,
            ),
        )

    def review_all(self, *, agree: bool = True) -> None:
        """Review what is up for review, in its order."""
        while waiting := self.found().reviews:
            climb.review(self.db, waiting[0], by=BOB, is_agreed=agree, note="so")

    def sign(self, *people: Principal) -> Promotion:
        """Let people ask for the next level, one after the other."""
        done = [climb.promote(self.db, KEYED, PROD, by=by, reason="it does well") for by in people]
        return done[-1]

    def answer(self, word: str, effect_id: EffectId) -> None:
        """Let dana answer all that is asked about a call."""
        with self.db.reading() as tx:
            waiting = approvals.list_for_effect(tx, effect_id)
        for one in waiting:
            approve.answer(
                self.db,
                self.engine.dispatch,
                one.approval_id,
                by=DANA,
                answer="approve" if word == "approve" else "reject",
                digest=one.digest,
                reason="I looked",
            )
        self.engine.run_until_idle()

    def climb_to(self, level: int) -> None:
        """Earn each level up to one."""
        for step in range(self.level + 1, level + 1):
            self.earn(step)
            self.sign(ANN, SUE)

    def earn(self, step: int) -> None:
        """Show all that a step takes."""
        self.judge()
        made = self.calls(8 if step == 3 else 3)
        if step == 2:
            for effect_id in made:
                self.answer("approve", effect_id)
            self.clock.advance(15 * DAY_S)
        else:
            self.review_all()
