"""Declared statements: what they may be, and what arguments make of their parameters."""

from __future__ import annotations

import pytest

from interlock.domain.canonical import Json
from interlock.domain.errors import InputError
from interlock.domain.tool import SqlQuery
from interlock.tools.requests.sql import check_query, parameters_of


@pytest.mark.parametrize(
    ("statement", "parameters", "said"),
    [
        ("select 1", {}, []),
        ("  -- all of them\n /* and\n more */ WITH a AS (SELECT 1) TABLE a", {}, []),
        ("select 10 %% 3, %(n)s", {"n": "in:/n"}, []),
        ("update t set a = 1", {}, ["a statement begins with SELECT, WITH, VALUES or TABLE"]),
        ("selection", {}, ["a statement begins with SELECT, WITH, VALUES or TABLE"]),
        ("-- select\ndelete from t", {}, ["a statement begins with SELECT, WITH, VALUES or TABLE"]),
        ("select %(a)s", {}, ["`parameters` does not say what `%(a)s` is"]),
        ("select 1", {"a": "in:/a"}, ["the parameter `a` is not in the statement"]),
        (
            "select 1 % 2, %s",
            {},
            ["a `%` stands before the name of a parameter, as `%(name)s`, or is written `%%`"] * 2,
        ),
    ],
)
def test_what_is_wrong_with_a_statement(
    statement: str, parameters: dict[str, Json], said: list[str]
) -> None:
    """Told before it is applied, and not by the first call."""
    query = SqlQuery(statement=statement, parameters=parameters)

    assert said == list(check_query(query))


def test_parameters_are_filled() -> None:
    """What the caller leaves out is null; text without a source is taken as it is."""
    query = SqlQuery(
        statement="",
        parameters={"a": "in:/a", "b": "in:/b", "c": 7, "d": "literal:in:/a", "e": "effect:id"},
    )

    found = parameters_of(query, {"a": [1, "x"]}, effect_id="e1", key="k1")

    assert {"a": [1, "x"], "b": None, "c": 7, "d": "in:/a", "e": "e1"} == found


@pytest.mark.parametrize("value", ["a\0b", ["a\0b"], {"a": 1}, [{"a": 1}], [[1]]])
def test_what_no_column_can_have_is_refused(value: Json) -> None:
    """By the name of its parameter."""
    query = SqlQuery(statement="", parameters={"a": "in:/a"})

    with pytest.raises(InputError, match="the parameter `a`"):
        parameters_of(query, {"a": value}, effect_id="e1", key="k1")
