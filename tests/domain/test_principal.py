from __future__ import annotations

import pytest

from interlock.domain.ids import AgentName, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Seat


def test_seat_is_read_back_from_its_text() -> None:
    """`<workflow>/<agent>` names a seat in rows, policies and messages."""
    seat = Seat(workflow=WorkflowName("triage"), agent=AgentName("resolver"))

    assert "triage/resolver" == str(seat)
    assert seat == Seat.parse("triage/resolver")


@pytest.mark.parametrize("text", ["", "triage", "/", "triage/", "/resolver", "a/b/c"])
def test_text_of_another_form_is_no_seat(text: str) -> None:
    """A seat is never guessed from half a name."""
    with pytest.raises(ValueError, match="a seat is `<workflow>/<agent>`, got"):
        Seat.parse(text)


def test_principal_may_nothing_by_default() -> None:
    """Without declared roles and groups there are none."""
    principal = Principal(name="ada", kind=PrincipalKind.USER)

    assert (frozenset(), frozenset()) == (principal.roles, principal.groups)
    assert DEFAULT_TENANT == principal.tenant
