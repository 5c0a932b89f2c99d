from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.cli import suites
from interlock.config import load
from interlock.domain.effect import EffectState
from interlock.evals.runner import CaseResult, Repeat, prepare_worlds, run_case
from interlock.evals.score import Verdict
from interlock.evals.suite import Case, Delivery, Person
from interlock.manifest.files import read_folder
from tests.evals.sample import CASE, GOOD, call, good

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "service_desk"
FOLDER = PROJECT / "suites" / "triage"
SUITE = suites.read(FOLDER)
GRANTED = next(c for c in SUITE.cases if c.id == "share-access-is-granted-by-its-owners")
ORDERS = next(c for c in SUITE.cases if c.id == "ticket-that-gives-orders-gets-nothing")

RunOnce = Callable[..., Repeat]

# Each starts a tracker, a mail service, a model and an installation.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the suite's programs are prepared."""
    folder = tmp_path_factory.mktemp("scratch")
    prepare_worlds(SUITE, folder=FOLDER, scratch=folder)
    return folder


@pytest.fixture
def run_once(scratch: Path) -> RunOnce:
    """Runs one case once, on the example with some of its files changed."""

    def run(case: Case, changed: Mapping[str, str] | None = None) -> Repeat:
        texts = {**read_folder(PROJECT), **(changed or {})}
        install = suites.Installer(settings=load(PROJECT, {}), texts=texts)
        (repeat,) = run_case(
            SUITE, case, install, folder=FOLDER, scratch=scratch, repeats=1
        ).repeats
        return repeat

    return run


def found(repeat: Repeat) -> list[str]:
    """Return the findings as `station.code`, in order."""
    return [f"{finding.station}.{finding.code}" for finding in repeat.findings]


@pytest.mark.parametrize("case", SUITE.cases, ids=[case.id for case in SUITE.cases])
def test_case_of_the_example_passes(run_once: RunOnce, case: Case) -> None:
    """Each golden case of the example's workflow passes on the example as it is."""
    assert [] == found(run_once(case))


def test_question_without_an_answer_ends_the_case(run_once: RunOnce) -> None:
    """If the case names nobody who answers, the runner does not wait until the time is up."""
    repeat = run_once(replace(GRANTED, people=()))

    assert ["governance.unanswered", "governance.approvals"] == found(repeat)[:2]
    assert "end.state" in found(repeat)
    assert repeat.seen is not None
    assert repeat.seen.wall_s < SUITE.limits.wall_s


def test_guardrail_that_was_removed_makes_the_case_unsafe(run_once: RunOnce) -> None:
    """Without the guardrail, and with a person who agrees, the mail leaves: the suite says so."""
    agreeing = tuple(
        Person(group=group, tool="mail.message.send", answer="approve")
        for group in ("security", "it-service-desk")
    )
    case = replace(ORDERS, people=(*ORDERS.people, *agreeing))

    repeat = run_once(case, {"policies/guardrails/mail.cedar": ""})

    assert Verdict.UNSAFE is repeat.verdict
    assert "safety.forbidden" in found(repeat)
    assert "world.count" in found(repeat)


def test_case_that_cannot_be_run_is_an_error(run_once: RunOnce) -> None:
    """A project that does not load is neither a pass nor a fail of the workflow."""
    repeat = run_once(GRANTED, {"agents/resolver.yaml": "kind: Agent\n"})

    assert Verdict.ERROR is repeat.verdict
    assert ["validity.manifest.invalid"] == found(repeat)
    assert repeat.seen is None


def test_run_is_started_by_hand_with_the_input_of_the_case(run_once: RunOnce) -> None:
    """A trigger without a webhook starts the workflow with the input of the case."""
    by_hand = Delivery(input={"ticket": "3", "reporter": "bob"})
    case = replace(SUITE.cases[0], trigger=by_hand)

    assert [] == found(run_once(case))


def test_repeats_that_differ_have_diverged() -> None:
    """Two repeats that each pass but made different calls are no proof of anything."""
    other = good(calls=(*GOOD.calls, call("c4", state=EffectState.DENIED)))
    repeats = (Repeat(findings=(), seen=GOOD), Repeat(findings=(), seen=other))

    result = CaseResult.of(CASE, repeats)

    assert Verdict.DIVERGED is result.verdict
    assert Verdict.PASS is CaseResult.of(CASE, repeats[:1]).verdict
