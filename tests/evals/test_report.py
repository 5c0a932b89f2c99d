from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import canonical_text
from interlock.evals.report import Versions, body, figures, verdict_of, zero_gates
from interlock.evals.runner import CaseResult, Repeat
from interlock.evals.score import Finding, Station, Verdict
from tests.evals.sample import CASE, GOOD, SUITE

PASSED = Repeat(findings=(), seen=GOOD)


def broken(station: Station, code: str = "code") -> Repeat:
    """Return a repeat with one finding."""
    return Repeat(findings=(Finding(station=station, code=code, message="why"),), seen=GOOD)


def result(*repeats: Repeat, findings: tuple[Finding, ...] = ()) -> CaseResult:
    """Return the result of a case."""
    return CaseResult(case=CASE, repeats=repeats, findings=findings)


DIVERGED = Finding(station=Station.VALIDITY, code="diverged", message="why")


@pytest.mark.parametrize(
    ("case", "of_case", "of_suite"),
    [
        (result(PASSED, PASSED), Verdict.PASS, Verdict.PASS),
        (result(PASSED, broken(Station.WORLD)), Verdict.FAIL, Verdict.FAIL),
        (result(broken(Station.SAFETY), PASSED), Verdict.UNSAFE, Verdict.FAIL),
        (result(broken(Station.VALIDITY), PASSED), Verdict.ERROR, Verdict.ERROR),
        (result(PASSED, PASSED, findings=(DIVERGED,)), Verdict.DIVERGED, Verdict.FAIL),
        (result(broken(Station.VALIDITY), broken(Station.END)), Verdict.FAIL, Verdict.FAIL),
    ],
)
def test_gravest_repeat_names_the_case_and_gates_the_suite(
    case: CaseResult, of_case: Verdict, of_suite: Verdict
) -> None:
    """Every repeat has to pass, equally; what could not be run is an error, never a pass."""
    assert of_case is case.verdict
    assert of_suite is verdict_of([result(PASSED), case])


def test_failure_outweighs_a_case_that_could_not_be_run() -> None:
    """One case that fails makes the suite fail, whatever else could not be judged."""
    assert Verdict.FAIL is verdict_of(
        [result(broken(Station.VALIDITY)), result(broken(Station.WORLD))]
    )


def test_zero_gates_count_unsafe_cases_and_findings() -> None:
    """Unsafe counts cases; duplicates and unrecorded calls count findings of all repeats."""
    found = [
        result(broken(Station.SAFETY, "duplicate"), broken(Station.SAFETY, "duplicate")),
        result(broken(Station.SAFETY, "unrecorded"), PASSED),
        result(broken(Station.WORLD, "duplicate")),
    ]

    assert {"unsafe": 2, "duplicates": 2, "unrecorded": 1} == zero_gates(found)


def test_figures_are_over_all_repeats() -> None:
    """Success is the mean over cases of the share of repeats that pass."""
    counted = figures([result(PASSED, broken(Station.END)), result(PASSED, PASSED)])

    assert (2, 1, 0.75) == (counted["cases"], counted["passed"], counted["success"])
    assert (8, 4, 360) == (counted["calls"], counted["approvals_given"], counted["cost_micro_usd"])


def test_body_is_json_with_versions_and_every_finding() -> None:
    """The stored form names what was judged, and says of each repeat what was found."""
    unseen = replace(broken(Station.VALIDITY, "unavailable"), seen=None)
    versions = Versions(suite="s", project="p", workflow=3, interlock="0.1.0")

    told = body(SUITE, [result(PASSED, unseen)], versions=versions)

    assert canonical_text(told)
    assert {
        "suite": "s",
        "project": "p",
        "workflow": 3,
        "policy": ["p1"],
        "interlock": "0.1.0",
    } == told["versions"]
    cases = told["cases"]
    assert isinstance(cases, list)
    (case,) = cases
    assert isinstance(case, dict)
    assert isinstance(case["repeats"], list)
    seen, error = case["repeats"]
    assert isinstance(seen, dict)
    assert ("pass", 4, 1500) == (seen["verdict"], seen["steps"], seen["wall_ms"])
    finding = {"station": "validity", "code": "unavailable", "message": "why"}
    assert {"verdict": "error", "findings": [finding]} == error
