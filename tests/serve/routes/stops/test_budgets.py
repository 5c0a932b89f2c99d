"""Budgets over REST and in the doctor's findings: who sees them, how they stand, what to do."""

from __future__ import annotations

import pytest

from interlock.domain.budget import Cost
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.serve import doctor
from interlock.store import budgets, runs
from interlock.testing.clock import ManualClock
from interlock.testing.recorder_project import WORKFLOW_OF, files
from tests.serve.plane import API, Plane, body_of, error_of, rows

DAY_US = 86_400_000_000
OF_DEPARTMENT = "scope: department\nof: it\nperiod: day"
OF_RUN = "scope: run\nperiod: run"
BUDGET = """
interlock: v1
kind: Budget
name: calls
title: Calls of the department
{scope}
unit: calls
limit: {limit}
soft: 5
"""


def apply(plane: Plane, *, scope: str = OF_DEPARTMENT, limit: int = 10) -> None:
    """Apply the project of the recording server with one budget."""
    budget = BUDGET.format(scope=scope, limit=limit)
    plane.apply(files("http://127.0.0.1:9") | {"budgets/calls.yaml": budget})


def spend(plane: Plane, calls: int, *, billed: int | None = None) -> str:
    """Start a run and let it hold so many calls; settle them as `billed`. Returns the run."""
    run, _ = plane.interlock.start_run(
        WorkflowName(WORKFLOW_OF["keyed"]),
        environment="dev",
        value={"text": "x"},
        by=Principal(name="ops", kind=PrincipalKind.USER),
        key=None,
    )
    db = plane.interlock.db
    with db.reading() as tx:
        of = plane.interlock.release(tx).budgets["calls"]
        held = runs.get(tx, run)
    cost = Cost(micro_usd=0, calls=calls)
    db.run("test", lambda tx: budgets.reserve(tx, (of,), held, holder=f"{run}/x", cost=cost))
    if billed is not None:
        real = Cost(micro_usd=0, calls=billed)
        db.run("test", lambda tx: budgets.settle(tx, f"{run}/x", real))
    return str(run)


def finding(plane: Plane) -> doctor.Check:
    """Return what the doctor says of budgets."""
    checks = doctor.examine(plane.interlock, plane.app.state.queues)
    return {check.name: check for check in checks}["budgets"]


async def shown(plane: Plane, token: str) -> list[JsonObject]:
    """Return the accounts of the budget."""
    return rows(body_of(await plane.send("GET", f"{API}/budgets/calls", token=token)), "accounts")


async def test_a_budget_is_listed_and_shown_as_it_stands(plane: Plane) -> None:
    """With a forecast that is at least what is spent and held."""
    apply(plane)
    spend(plane, 4)
    token = plane.key(Role.VIEWER)

    [listed] = rows(body_of(await plane.send("GET", f"{API}/budgets", token=token)), "budgets")
    [account] = await shown(plane, token)

    assert ("calls", "department", "it", "day", 10) == tuple(
        listed[name] for name in ("name", "scope", "of", "period", "limit")
    )
    assert ("it", 0, 4, 6, False, 4) == tuple(
        account[name]
        for name in ("account", "spent", "reserved", "left", "is_soft_reached", "forecast")
    )
    assert DAY_US == int(str(account["end_us"])) - int(str(account["start_us"]))
    assert account["reached_us"] is None


async def test_runs_that_spent_most_come_first_where_each_has_its_own(plane: Plane) -> None:
    """An account is the run at the top of a tree."""
    apply(plane, scope=OF_RUN)
    little, much = spend(plane, 1), spend(plane, 3)

    accounts = await shown(plane, plane.key(Role.VIEWER))

    assert [(much, 3), (little, 1)] == [(a["account"], a["reserved"]) for a in accounts]
    assert {(None, None)} == {(a["end_us"], a["forecast"]) for a in accounts}


@pytest.mark.parametrize("scope", ["scope: tenant\nof: default\nperiod: day", OF_RUN])
async def test_a_budget_that_is_about_another_tenant_is_not_there(plane: Plane, scope: str) -> None:
    """Of a tenant, or of the runs of workflows that all belong to one."""
    apply(plane, scope=scope)
    spend(plane, 2)
    token = plane.key(Role.VIEWER, tenant=TenantId("other"))

    listed = rows(body_of(await plane.send("GET", f"{API}/budgets", token=token)), "budgets")
    answer = await plane.send("GET", f"{API}/budgets/calls", token=token)

    assert ([], 404) == (listed, answer.status_code)
    assert "there is no budget `calls`" in error_of(answer)


def test_the_doctor_names_what_is_over_its_soft_limit(plane: Plane, clock: ManualClock) -> None:
    """Until the next window begins."""
    nothing = finding(plane)
    apply(plane)
    spend(plane, 4)
    below = finding(plane)
    spend(plane, 1)
    above = finding(plane)
    clock.advance(DAY_US / 1_000_000)

    assert (True, "none") == (nothing.is_ok, nothing.message)
    assert (True, "1, none over its soft limit") == (below.is_ok, below.message)
    assert not above.is_ok
    assert "`calls` has 5 of 10 calls left; see `interlock budget show NAME`" == above.message
    assert finding(plane).is_ok


@pytest.mark.parametrize("scope", [OF_DEPARTMENT, OF_RUN])
def test_the_doctor_names_what_a_bill_has_closed(plane: Plane, scope: str) -> None:
    """Until somebody raises the limit."""
    apply(plane, scope=scope)
    spend(plane, 1, billed=2)
    closed = finding(plane)
    apply(plane, scope=scope, limit=11)

    assert not closed.is_ok
    assert "`calls` is closed, since more was billed than reserved" in closed.message
    assert finding(plane).is_ok


def test_runs_near_their_limit_are_no_finding(plane: Plane) -> None:
    """They are many, and each ends."""
    apply(plane, scope=OF_RUN)
    spend(plane, 6)

    assert finding(plane).is_ok
