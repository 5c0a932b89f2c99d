from __future__ import annotations

import pytest

from interlock.manifest.load import load
from tests.manifest.sample import FILES, problems

PATH = "budgets/desk.yaml"
BUDGET = """\
interlock: v1
kind: Budget
name: desk
title: Money of the desk
scope: department
of: it
period: day
timezone: Europe/Berlin
unit: micro_usd
limit: 1000
soft: 800
"""


def written(old: str, new: str) -> dict[str, str]:
    """Return the project with a budget, one text of which is replaced."""
    assert old in BUDGET
    return FILES | {PATH: BUDGET.replace(old, new, 1)}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("of: it\n", "", "`of` is missing (name the department)"),
        ("of: it", "of: itt", "no workflow has the department `itt` (known are it)"),
        ("department\nof: it", "workflow\nof: triag", "there is no workflow `triag`"),
        ("department\nof: it", "run\nof: triage", "a budget of each run is for the whole run"),
        ("period: day", "period: run", "a budget of each run is for the whole run"),
        ("soft: 800", "soft: 1001", "`soft` is above the limit"),
        ("Europe/Berlin", "Europe/Bärlin", "there is no time zone `Europe/Bärlin`"),
        ("Europe/Berlin", "../../etc/passwd", "there is no time zone `../../etc/passwd`"),
        ("limit: 1000", "limit: -1", "greater than or equal to 0"),
        ("limit: 1000", "limit: 9007199254740992", "is beyond 2^53"),
        ("micro_usd", "euro", "`unit`"),
    ],
)
def test_budget_that_cannot_hold_is_refused(old: str, new: str, expected: str) -> None:
    """With its line and what to write instead."""
    (problem,) = problems(written(old, new))

    assert problem.startswith(f"{PATH}:")
    assert expected in problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("department\nof: it\nperiod: day", "run\nperiod: run"),
        ("department\nof: it\nperiod: day", "run\nof: triage\nperiod: run"),
        ("department\nof: it", "tenant\nof: default"),
        ("soft: 800\n", ""),
        ("limit: 1000\nsoft: 800", "limit: 0"),
    ],
)
def test_budget_of_each_kind_is_taken(old: str, new: str) -> None:
    """Of all runs or those of a workflow, of a tenant, without a soft limit, and of nothing."""
    assert ["desk"] == list(load(written(old, new)).budgets)
