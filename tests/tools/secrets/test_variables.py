"""Secrets in variables: each reference has its own, and what can have none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.errors import InputError, UnavailableError
from interlock.tools.secrets.variables import VariableSecrets, variable_of

REFERENCE = "secret://servicedesk/dev/triage-bot"
NAME = "INTERLOCK_SECRET_SERVICEDESK__DEV__TRIAGE_BOT"
PARTS = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,2}", fullmatch=True).filter(lambda p: len(p) < 65)
REFERENCES = st.tuples(PARTS, PARTS, PARTS).map(lambda parts: f"secret://{'/'.join(parts)}")


def test_a_reference_is_the_value_of_its_variable() -> None:
    """Without the line break that a file would have brought."""
    secrets = VariableSecrets({NAME: "s3cret\n", "OTHER": "x"})

    assert "s3cret" == secrets.resolve(REFERENCE)
    assert ("s3cret",) == secrets.accepted(REFERENCE)


def test_the_value_before_counts_as_long_as_it_is_set() -> None:
    """So that a signing secret can be replaced without a lost delivery."""
    secrets = VariableSecrets({NAME: "new", f"{NAME}__BEFORE": "old"})

    assert "new" == secrets.resolve(REFERENCE)
    assert ("new", "old") == secrets.accepted(REFERENCE)


@pytest.mark.parametrize("environ", [{}, {NAME: ""}], ids=["absent", "empty"])
def test_a_variable_that_is_not_set_is_named(environ: dict[str, str]) -> None:
    """An empty one counts as absent."""
    with pytest.raises(UnavailableError, match=f"set `{NAME}`"):
        VariableSecrets(environ).resolve(REFERENCE)


@pytest.mark.parametrize("name", ["a_b", "a.b", "A", "a--b", "a-"])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    """`a_b` and `a-b` would share a variable, and so a credential."""
    with pytest.raises(InputError, match="makes no variable"):
        variable_of(f"secret://servicedesk/dev/{name}")


def test_values_of_several_lines_are_refused() -> None:
    """They could become several headers."""
    with pytest.raises(InputError, match="one line"):
        VariableSecrets({NAME: "a\nb"}).resolve(REFERENCE)


@given(one=REFERENCES, other=REFERENCES)
def test_no_two_references_share_a_variable(one: str, other: str) -> None:
    """Whatever is read for one was meant for it, and so is the value before."""
    if one != other:
        assert variable_of(one) != variable_of(other)
        assert f"{variable_of(one)}__BEFORE" != variable_of(other)
