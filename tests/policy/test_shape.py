from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.policy.shape import (
    Record,
    Scalar,
    SetOf,
    arguments_shape,
    cedar_type,
    cedar_value,
    find_reserved_key,
    is_always_present,
)
from tests.policy.project import TEXT, schema

LONG, STRING, BOOLEAN = Scalar(kind="Long"), Scalar(kind="String"), Scalar(kind="Boolean")


def visible(part: Json) -> object:
    """Return the shape of one argument, None if it is hidden."""
    return arguments_shape(schema(x=part)).fields.get("x")


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        ({"type": "string"}, STRING),
        ({"type": "integer"}, LONG),
        ({"type": "boolean"}, BOOLEAN),
        ({"enum": ["a", "b"]}, STRING),
        ({"const": 3}, LONG),
        ({"enum": [True]}, BOOLEAN),
        ({"enum": ["a", None]}, STRING),
        ({"type": ["string", "null"]}, STRING),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, LONG),
        ({"oneOf": [{"type": "null"}, {"enum": ["a"]}]}, STRING),
        ({"$ref": "#/properties/x/$defs/n", "$defs": {"n": {"type": "integer"}}}, LONG),
        ({"type": "array", "items": {"type": "string"}}, SetOf(item=STRING)),
        (
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"n": {"type": "integer"}, "o": {"type": "number"}},
                "required": ["n", "o"],
            },
            Record(fields={"n": LONG}, required=frozenset({"n"}), hidden=frozenset({"o"})),
        ),
    ],
)
def test_what_cedar_can_type_is_visible(part: JsonObject, shape: object) -> None:
    """Scalars, sets of scalars and closed records keep their type."""
    assert shape == visible(part)


@pytest.mark.parametrize(
    "part",
    [
        True,
        {},
        {"type": "number"},
        {"type": "null"},
        {"type": ["string", "integer"]},
        {"enum": ["a", 1]},
        {"enum": "a"},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [{"type": "string"}]},
        {"anyOf": [{}, {"type": "null"}]},
        {"$ref": "https://elsewhere.example/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": "#/properties/x"},
        {"$dynamicRef": "#x"},
        {"type": "array"},
        {"type": "array", "items": {"type": "object"}},
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "items": True},
        {"type": "array", "prefixItems": [TEXT], "items": TEXT},
        {"type": "object", "properties": {"a": TEXT}},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "additionalProperties": False, "properties": []},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {"a": TEXT},
            "patternProperties": {"^b": TEXT},
        },
    ],
)
def test_what_cedar_cannot_type_is_hidden(part: Json) -> None:
    """A policy cannot name it, and it is not passed."""
    assert None is visible(part)


def test_records_end_at_depth_three() -> None:
    """What is nested deeper is hidden."""
    nested: JsonObject = schema(leaf=TEXT)
    for _ in range(4):
        nested = schema(leaf=TEXT, deeper=nested)

    shape: object = arguments_shape(nested)
    depth = 0
    while isinstance(shape, Record):
        depth += 1
        shape = shape.fields.get("deeper")

    assert 4 == depth


def test_hidden_and_reserved_names_are_not_visible() -> None:
    """The manifest can hide arguments, and reserved keys are never passed."""
    shape = arguments_shape(schema(a=TEXT, b=TEXT, __extn=TEXT), hidden=("b",))

    assert Record(fields={"a": STRING}, hidden=frozenset({"b", "__extn"})) == shape


def test_schema_that_is_no_plain_object_shows_nothing() -> None:
    """With patterns at the top no argument is visible, and all others are refused."""
    assert Record() == arguments_shape({"type": "object", "patternProperties": {"^a": TEXT}})


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        ({"n": 1}, {"n": 1}),
        ({"n": 1.0}, {"n": 1}),
        ({"n": 1, "s": None}, {"n": 1}),
        ({"n": 1, "s": "a", "h": 1.5}, {"n": 1, "s": "a"}),
        ({"n": -(2**63), "t": ["b", "a"]}, {"n": -(2**63), "t": ["b", "a"]}),
        ({"n": 1, "b": True}, {"n": 1, "b": True}),
    ],
)
def test_values_that_fit_are_mapped(value: JsonObject, mapped: JsonObject) -> None:
    """Null drops the key, hidden parts are dropped, whole numbers are exact."""
    assert mapped == cedar_value(PLAIN, value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({}, "`/n` is missing"),
        ({"n": None}, "`/n` is missing"),
        ({"n": "1"}, "`/n` is not a Long"),
        ({"n": True}, "`/n` is not a Long"),
        ({"n": 2**63}, "`/n` is not a Long"),
        ({"n": 1.5}, "`/n` is not a Long"),
        ({"n": float(2**60)}, "`/n` is not a Long"),
        ({"n": 1, "b": 1}, "`/b` is not a Boolean"),
        ({"n": 1, "t": "a"}, "`/t` is not a list"),
        ({"n": 1, "t": ["a", 2]}, "`/t/1` is not a String"),
        ({"n": 1, "x": 1}, "`/x` is not declared"),
        ([], "`/` is not an object"),
    ],
)
def test_value_that_does_not_fit_is_refused_with_its_place(value: Json, place: str) -> None:
    """Nothing is coerced and nothing is guessed."""
    with pytest.raises(InputError) as caught:
        cedar_value(PLAIN, value)

    assert caught.value.message.startswith(place)


def test_open_object_drops_what_it_does_not_declare() -> None:
    """Members that only an open contract lets through are not seen by policy."""
    shape = arguments_shape({"type": "object", "properties": {"a": TEXT}})

    assert {"a": "x"} == cedar_value(shape, {"a": "x", "more": [1]})


@pytest.mark.parametrize("value", [{"a": [{"__expr": 1}]}, [{"__extn": 1}], {"__entity": 1}])
def test_reserved_key_is_found_at_any_depth(value: Json) -> None:
    """The key is named, wherever it is."""
    assert str(find_reserved_key(value)).startswith("__")


def test_plain_value_has_no_reserved_key() -> None:
    """Values that look like the key do not count."""
    assert None is find_reserved_key({"a": ["__expr", {"b": "__extn"}], "c": 1})


@pytest.mark.parametrize(
    ("pointer", "is_present"),
    [("/a", True), ("/b", False), ("/c/d", True), ("/c/e", False), ("/n", False), ("/x/y", False)],
)
def test_presence_follows_from_the_contract(pointer: str, *, is_present: bool) -> None:
    """Only what is required at each step and cannot be null is always there."""
    contract = schema(
        required=("a", "c", "n", "x"),
        a=TEXT,
        b=TEXT,
        c=schema(required=("d",), d=TEXT, e=TEXT),
        n={"type": ["string", "null"]},
        x=True,
    )

    assert is_present is is_always_present(contract, pointer)


PLAIN = arguments_shape(
    schema(
        required=("n",),
        n={"type": "integer"},
        s={"type": ["string", "null"]},
        b={"type": "boolean"},
        t={"type": "array", "items": TEXT},
        h={"type": "number"},
    )
)

_SCALARS = st.sampled_from(["string", "integer", "boolean", "number", "null"])
_SCHEMAS = st.recursive(
    _SCALARS.map(lambda kind: {"type": kind}),
    lambda inner: st.one_of(
        inner.map(lambda item: {"type": "array", "items": item}),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda found: schema(required=tuple(found)[:1], **found)
        ),
    ),
    max_leaves=6,
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(part=_SCHEMAS, value=_VALUES)
def test_what_is_mapped_always_fits_the_schema_that_was_generated(
    part: JsonObject, value: Json
) -> None:
    """For any contract and value the mapper refuses, or Cedar can read what it returns."""
    shape = arguments_shape(schema(x=part))
    try:
        mapped = cedar_value(shape, {"x": value})
    except InputError:
        return

    context: JsonObject = {"type": "Record", "attributes": {"args": cedar_type(shape)}}
    applies: JsonObject = {"principalTypes": ["A"], "resourceTypes": ["A"], "context": context}
    cedar: JsonObject = {"": {"entityTypes": {"A": {}}, "actions": {"do": {"appliesTo": applies}}}}
    answer = cedarpy.is_authorized(
        {
            "principal": 'A::"a"',
            "action": 'Action::"do"',
            "resource": 'A::"a"',
            "context": {"args": mapped},
        },
        "permit (principal, action, resource);",
        [],
        cedarpy.Schema.from_json_str(json.dumps(cedar)),
    )
    assert ([], True) == (answer.diagnostics.errors, answer.allowed)
