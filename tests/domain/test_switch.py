"""What a kill switch stops: every part of its scope has to fit, and less is never more."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.ids import AgentName, TenantId, ToolName, WorkflowName
from interlock.domain.principal import Seat
from interlock.domain.switch import KillSwitch, Scope, Target, first_stopping
from interlock.domain.tool import Environment

CALL = Target(
    tenant=TenantId("acme"),
    environment="dev",
    department="it",
    workflow=WorkflowName("triage"),
    seats=(Seat.parse("triage/resolver"), Seat.parse("billing/clerk")),
    tool=ToolName("desk.issue.create"),
    system="desk",
    is_write=True,
)
ASKED = replace(CALL, tool=None, system=None, model="small", is_write=False)
SWITCH = KillSwitch(
    switch_id="k1",
    tenant=TenantId("acme"),
    scope=Scope(),
    reason="a test",
    set_by="dana",
    set_us=100,
)

scopes = st.builds(
    Scope,
    environment=st.sampled_from((None, "dev", "prod")),
    department=st.sampled_from((None, "it")),
    workflow=st.sampled_from((None, WorkflowName("triage"), WorkflowName("other"))),
    agent=st.sampled_from((None, AgentName("resolver"), AgentName("clerk"))),
    tool=st.sampled_from((None, ToolName("desk.issue.create"))),
    system=st.sampled_from((None, "desk", "crm")),
    model=st.sampled_from((None, "small")),
    writes_only=st.booleans(),
)


@pytest.mark.parametrize(
    ("scope", "stops_call", "stops_model"),
    [
        (Scope(), True, True),
        (Scope(environment="dev"), True, True),
        (Scope(environment="prod"), False, False),
        (Scope(department="it"), True, True),
        (Scope(department="sales"), False, False),
        (Scope(workflow=WorkflowName("triage")), True, True),
        (Scope(workflow=WorkflowName("billing")), True, True),
        (Scope(agent=AgentName("clerk")), True, True),
        (Scope(agent=AgentName("clerk"), workflow=WorkflowName("triage")), False, False),
        (Scope(agent=AgentName("clerk"), workflow=WorkflowName("billing")), True, True),
        (Scope(tool=ToolName("desk.issue.create")), True, False),
        (Scope(tool=ToolName("desk.issue.find")), False, False),
        (Scope(system="desk"), True, False),
        (Scope(model="small"), False, True),
        (Scope(model="large"), False, False),
        (Scope(writes_only=True), True, False),
    ],
)
def test_every_part_has_to_fit(scope: Scope, *, stops_call: bool, stops_model: bool) -> None:
    """Of a call that was handed on, each seat of the chain counts, but parts of one seat only."""
    assert (stops_call, stops_model) == (scope.covers(CALL), scope.covers(ASKED))


@given(scopes, scopes)
def test_a_scope_within_another_stops_nothing_else(less: Scope, more: Scope) -> None:
    """What is left stopped when a switch is lifted is never more than it stopped."""
    environments: tuple[Environment, ...] = ("dev", "prod")
    targets = [
        replace(target, environment=environment, seats=seats)
        for target, environment, seats in product(
            (CALL, ASKED, replace(CALL, is_write=False)),
            environments,
            (CALL.seats, CALL.seats[:1], ()),
        )
    ]

    if less.is_within(more):
        assert all(more.covers(target) for target in targets if less.covers(target))


def test_it_is_in_force_until_it_is_lifted_or_over() -> None:
    """The end itself is no longer in force; another tenant's calls are never stopped."""
    limited = replace(SWITCH, expires_us=200)

    assert [True, False] == [limited.stops(CALL, now_us) for now_us in (199, 200)]
    assert not replace(SWITCH, lifted_us=150).stops(CALL, 160)
    assert not SWITCH.stops(replace(CALL, tenant=TenantId("other")), 160)
    assert SWITCH is first_stopping([replace(SWITCH, lifted_us=1), SWITCH], CALL, now_us=160)


def test_it_says_what_it_stops() -> None:
    """In words that an operator can check before it is confirmed."""
    assert "all writes" == str(Scope(writes_only=True))
    assert "workflow `triage`, agent `resolver`" == str(
        Scope(workflow=WorkflowName("triage"), agent=AgentName("resolver"))
    )
    assert Scope().touches_prod
    assert not Scope(environment="dev").touches_prod
