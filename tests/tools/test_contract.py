"""Contracts: what they refuse, how they say it, and which schemas can be one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import ContractError
from interlock.tools.contract import Contract, check_schema

TICKET: JsonObject = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title"],
    "properties": {
        "title": {"type": "string", "maxLength": 5},
        "priority": {"enum": ["high", "low"]},
        "due": {"type": "string", "format": "date"},
    },
}


def _problems(value: Json, schema: JsonObject = TICKET) -> str:
    with pytest.raises(ContractError) as caught:
        Contract.of(schema).check(value, what="arguments")
    return caught.value.message


def test_value_that_fits_passes() -> None:
    """A value within its contract is accepted without a word."""
    Contract.of(TICKET).check({"title": "VPN", "priority": "high", "due": "2026-01-31"}, "x")


def test_message_lists_every_place_to_mend() -> None:
    """An agent learns of all misfits at once, each with its pointer."""
    message = _problems({"title": "too long", "priority": "mid", "due": "2026-02-31"})

    assert message.startswith("the arguments cannot be accepted: ")
    assert all(place in message for place in ("`/title`", "`/priority`", "`/due`"))


def test_error_points_at_the_first_misfit() -> None:
    """The pointer names the place, escaped as RFC 6901 says."""
    schema: JsonObject = {"type": "object", "properties": {"a/b~": {"type": "string"}}}

    with pytest.raises(ContractError) as caught:
        Contract.of(schema).check({"a/b~": 1}, what="result")

    assert caught.value.pointer == "/a~1b~0"


def test_unknown_member_is_refused_by_name() -> None:
    """A closed object names the member that it does not know."""
    assert "'cc'" in _problems({"title": "VPN", "cc": "me"})


def test_long_values_are_not_repeated_whole() -> None:
    """A message stays short whatever the value was."""
    assert len(_problems({"title": "x" * 10_000})) < 400


def test_number_with_fraction_is_no_integer() -> None:
    """`1.5` never passes for an integer."""
    schema: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}}

    assert "`/n`" in _problems({"n": 1.5}, schema)


def test_contract_is_compiled_once_by_content() -> None:
    """Equal schemas share one compiled contract."""
    copy: JsonObject = json.loads(json.dumps(TICKET))

    assert Contract.of(TICKET) is Contract.of(copy)


def test_pattern_takes_linear_time() -> None:
    """A pattern that explodes elsewhere is answered at once, and a look-ahead is no pattern."""
    schema: JsonObject = {"type": "string", "pattern": "^(a+)+$"}

    assert "`/`" in _problems("a" * 50_000 + "b", schema)
    assert check_schema({"type": "string", "pattern": "(?=a)"})


@pytest.mark.parametrize(
    ("value", "unknown", "expected"),
    [
        ({"title": "call:a"}, ["/title"], None),
        ({"title": "call:a", "due": "soon"}, ["/title"], "`/due`"),
        ({"titel": "call:a"}, ["/titel"], "additional properties"),
        ({"due": "call:a"}, ["/due"], "`/`"),
        ({"title": "call:a/b"}, ["/titl"], "`/title`"),
    ],
)
def test_what_is_not_known_yet_is_not_judged(
    value: Json, unknown: list[str], expected: str | None
) -> None:
    """Members that are missing, unknown or known already are judged all the same."""
    contract = Contract.of(TICKET)

    if expected is None:
        contract.check_known(value, what="arguments", unknown=unknown)
        return
    with pytest.raises(ContractError) as caught:
        contract.check_known(value, what="arguments", unknown=unknown)
    assert expected in caught.value.message.lower()


def test_what_is_decided_by_an_unknown_value_is_not_judged() -> None:
    """A choice or a condition over a place that is not known may still come out right."""
    either: JsonObject = {"oneOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}]}
    ifs: JsonObject = {"if": {"required": ["a"]}, "then": {"required": ["b"]}}

    for schema in (either, ifs):
        Contract.of(schema).check_known({"a": "call:x"}, what="x", unknown=["/a"])


def test_good_schema_has_no_problems() -> None:
    """A closed schema may be the input of a writing tool."""
    assert check_schema(TICKET, must_be_closed=True) == ()


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"$ref": "https://example.org/x.json"}, "leaves the document"),
        ({"$ref": "file:///etc/passwd"}, "leaves the document"),
        ({"$id": "https://example.org/", "type": "object"}, "`$id`"),
        ({"$dynamicRef": "#x"}, "`$dynamicRef`"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be"),
        ({"type": "thing"}, "cannot be used"),
        ({"$ref": "#/$defs/none"}, "cannot be used"),
        ({"type": "string", "pattern": "x" * 2000}, "longer than"),
        ({"anyOf": [{"type": "string", "not": {"const": str(n)}} for n in range(80)]}, "combin"),
        (
            {"type": "object", "properties": {str(n): {"type": "null"} for n in range(2001)}},
            "parts",
        ),
    ],
)
def test_schema_that_cannot_be_a_contract_is_refused(schema: JsonObject, expected: str) -> None:
    """References stay local, sizes are bounded, and what does not compile is named."""
    assert expected in " ".join(check_schema(schema))


def test_deep_schema_is_refused() -> None:
    """Nesting is bounded."""
    schema: JsonObject = {"type": "string"}
    for _ in range(20):
        schema = {"type": "array", "items": schema}

    assert "deeper" in " ".join(check_schema(schema))


def _doubling(levels: int) -> JsonObject:
    """Return a schema whose every level applies the next one twice."""
    definitions: JsonObject = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        _doubling(40),
        {"properties": {"x": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}},
        {"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/%69tems/anyOf/0"}, {"$ref": "#"}]}},
        {"properties": {"x": {"$ref": "#"}}, "patternProperties": {"^x": {"$ref": "#"}}},
        {"$ref": "#/x-hidden", "x-hidden": {"items": {"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}}},
    ],
)
def test_schema_that_doubles_its_work_is_refused(schema: JsonObject) -> None:
    """A short schema cannot keep the process busy for hours with a small value."""
    assert "more than 100000 times" in " ".join(check_schema(schema))


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}}]
)
def test_schema_that_refers_to_itself_in_place_is_refused(schema: JsonObject) -> None:
    """A reference must lead further into the value, or to another schema."""
    assert "refers to itself" in " ".join(check_schema(schema))


@pytest.mark.parametrize(
    "schema",
    [
        _doubling(10),
        {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"$ref": "#"}},
                {"type": "object", "additionalProperties": {"$ref": "#"}},
            ]
        },
    ],
)
def test_schema_of_nested_values_is_accepted(schema: JsonObject) -> None:
    """Trees, and JSON itself, cost no more than they are long."""
    assert check_schema(schema) == ()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object"},
        {"type": ["object", "null"], "properties": {}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"properties": {}},
        {},
        {"anyOf": [{"type": "object"}, {"type": "null"}]},
        {"type": "array", "items": {"type": "object"}},
    ],
)
def test_writing_tool_may_not_take_what_policy_cannot_see(part: JsonObject) -> None:
    """Open objects and values of any type are refused wherever they hide."""
    schema: JsonObject = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"part": part},
    }

    assert check_schema(schema) == ()
    assert check_schema(schema, must_be_closed=True)


def test_conditions_may_stay_open() -> None:
    """What only narrows a closed object need not be closed itself."""
    schema: JsonObject = {
        **TICKET,
        "if": {"properties": {"priority": {"const": "high"}}},
        "then": {"required": ["due"]},
        "anyOf": [{"required": ["due"]}, {"required": ["priority"]}],
    }

    assert check_schema(schema, must_be_closed=True) == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=20,
    )
)
def test_any_json_is_judged_without_a_crash(value: Json) -> None:
    """Whatever stands where a schema is expected, the answer is a list of problems."""
    assert isinstance(check_schema({"type": "object", "properties": {"x": value}}), tuple)
