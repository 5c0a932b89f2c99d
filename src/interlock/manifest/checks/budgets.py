"""Budgets that cannot hold: of nobody, in windows that do not fit their scope, or in no zone."""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from interlock.domain.budget import Budget
from interlock.domain.errors import Problem
from interlock.domain.release import Release
from interlock.manifest.files import Document
from interlock.manifest.names import Names


def check_budget(
    budget: Budget, document: Document, *, names: Names, release: Release
) -> Iterator[Problem]:
    """Yield what is wrong with a budget of a release."""
    if budget.of is None and budget.scope != "run":
        fix = f"name the {budget.scope}"
        yield document.problem((), "`of` is missing", fix)
    elif budget.of is not None and budget.scope in {"run", "workflow"}:
        yield from names.missing(document, ("of",), "Workflow", budget.of)
    elif budget.scope == "department" and budget.of not in _departments(release):
        known = ", ".join(sorted(_departments(release)))
        message = f"no workflow has the department `{budget.of}`"
        yield document.problem(("of",), message, f"known are {known}" if known else None)
    if (budget.scope == "run") != (budget.period == "run"):
        fix = "write `run` for both, or a workflow, department or tenant with hour, day or month"
        yield document.problem(("period",), "a budget of each run is for the whole run", fix)
    if budget.soft is not None and budget.soft > budget.limit:
        fix = f"write at most {budget.limit}"
        yield document.problem(("soft",), "`soft` is above the limit, so it tells nothing", fix)
    try:
        ZoneInfo(budget.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"there is no time zone `{budget.timezone}`"
        yield document.problem(("timezone",), message, "write it like Europe/Paris")


def _departments(release: Release) -> set[str]:
    return {workflow.department for workflow in release.workflows.values()}
