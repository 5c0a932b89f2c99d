from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import RunId
from interlock.domain.tool import ToolVersion
from interlock.observe import bodies
from interlock.store.engine import Database
from tests.conformance import store_rows as rows
from tests.policy.project import tool

RUN_ID = RunId("r1")
KEY = b"k" * 32
CANARY = "canary-4711-7413"


def stored(
    db: Database, version: ToolVersion, arguments: JsonObject, *, key: bytes | None = KEY
) -> Json:
    """Return what is stored of the arguments of a call."""
    effect = replace(rows.effect(RUN_ID), arguments=arguments)
    db.run("test", lambda tx: bodies.write_arguments(tx, effect, version, key=key))
    with db.reading() as tx:
        return bodies.list_for_run(tx, RUN_ID)["file"][bodies.ARGUMENTS]


def classed(name: str, **redact: str) -> ToolVersion:
    """Return a tool whose member `v` is of a class."""
    member: JsonObject = {"type": "string", bodies.CLASS_KEY: name}
    schema: JsonObject = {"type": "object", "properties": {"v": member, "w": {"type": "string"}}}
    return tool("desk.issue.create", input_schema=schema, redact=redact)


def test_content_without_class_is_kept(db: Database) -> None:
    """What no contract classes is stored as it is."""
    kept: JsonObject = {"w": "open", "n": [1, {"deep": None}]}

    assert kept == stored(db, classed("pii"), kept)


@pytest.mark.parametrize("name", ["secret", "pii", "financial", "free_text", "of-no-known-class"])
def test_classed_value_is_not_stored_in_clear(db: Database, name: str) -> None:
    """Every class has a treatment; an unknown one is treated like a secret."""
    found = stored(db, classed(name), {"v": CANARY, "w": "open"})

    assert CANARY not in str(found)
    assert isinstance(found, dict)
    assert "open" == found["w"]


def test_token_keeps_equality(db: Database) -> None:
    """Equal values have equal tokens, others others."""
    listed: JsonObject = {"type": "array", "items": {bodies.CLASS_KEY: "pii"}}
    version = tool(
        "desk.issue.create", input_schema={"type": "object", "properties": {"v": listed}}
    )

    found = stored(db, version, {"v": ["ann", "bob", "ann"]})

    assert isinstance(found, dict)
    tokens = found["v"]
    assert isinstance(tokens, list)
    assert tokens[0] == tokens[2] != tokens[1]
    assert str(tokens[0]).startswith("token:")


def test_token_without_key_is_dropped(db: Database) -> None:
    """Without a key a token could be guessed back, so nothing is stored."""
    assert {"v": bodies.DROPPED} == stored(db, classed("pii"), {"v": "ann"}, key=None)


@pytest.mark.parametrize(("value", "shown"), [("DE89370400440532", "…0532"), ("1234567", None)])
def test_last_four_characters_of_long_values_are_kept(
    db: Database, value: str, shown: str | None
) -> None:
    """A short value is dropped, since four characters would be most of it."""
    assert {"v": shown or bodies.DROPPED} == stored(db, classed("financial"), {"v": value})


def test_last_four_of_what_is_no_text_or_number_is_dropped(db: Database) -> None:
    """An object of a financial class is dropped whole; null stays null."""
    values: list[Json] = [{"iban": CANARY}, None]

    found = [stored_value(db, value) for value in values]

    assert [bodies.DROPPED, None] == found


def stored_value(db: Database, value: Json) -> Json:
    """Return what is stored of one financial value."""
    found = stored(db, classed("financial"), {"v": value})
    assert isinstance(found, dict)
    return found["v"]


def test_manifest_treats_a_member_by_name_at_any_depth(db: Database) -> None:
    """`redact` reaches members that no schema describes."""
    version = tool("desk.issue.create", input_schema={"type": "object"}, redact={"note": "drop"})

    found = stored(db, version, {"note": CANARY, "items": [{"note": CANARY, "id": 1}]})

    assert {"note": bodies.DROPPED, "items": [{"note": bodies.DROPPED, "id": 1}]} == found


def test_manifest_changes_the_treatment_of_a_class_or_member(db: Database) -> None:
    """A class and a member can be given another treatment than the default one."""
    by_class = stored(db, classed("free_text", free_text="keep"), {"v": "hello"})

    by_member = stored(db, classed("free_text", v="keep"), {"v": "hello"})

    assert [{"v": "hello"}, {"v": "hello"}] == [by_class, by_member]


@pytest.mark.parametrize("redact", [{"v": "keep"}, {"secret": "keep"}])
def test_secret_cannot_be_kept(db: Database, redact: dict[str, str]) -> None:
    """No treatment makes a secret stored."""
    assert {"v": bodies.DROPPED} == stored(db, classed("secret", **redact), {"v": CANARY})


@pytest.mark.parametrize(
    "member",
    [
        {"$ref": "#/$defs/name"},
        {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/name"}]},
        {"allOf": [{"type": "string"}, {"if": {bodies.CLASS_KEY: "secret"}}]},
    ],
)
def test_class_behind_a_reference_or_branch_is_found(db: Database, member: JsonObject) -> None:
    """It does not matter how the schema comes to class the place."""
    schema: JsonObject = {
        "type": "object",
        "properties": {"v": member},
        "$defs": {"name": {"type": "string", bodies.CLASS_KEY: "secret"}},
    }

    found = stored(db, tool("desk.issue.create", input_schema=schema), {"v": CANARY})

    assert {"v": bodies.DROPPED} == found


@pytest.mark.parametrize("keyword", ["additionalProperties", "patternProperties"])
def test_class_of_undeclared_members_is_found(db: Database, keyword: str) -> None:
    """Members that only a pattern or the rest describes are treated too."""
    member: JsonObject = {bodies.CLASS_KEY: "secret"}
    part: JsonObject = member if keyword == "additionalProperties" else {"^v": member}

    found = stored(
        db, tool("desk.issue.create", input_schema={"type": "object", keyword: part}), {"v": CANARY}
    )

    assert {"v": bodies.DROPPED} == found


@pytest.mark.parametrize(
    "rest",
    [
        {"unevaluatedProperties": {bodies.CLASS_KEY: "secret"}},
        {"dependentSchemas": {"w": {"properties": {"v": {bodies.CLASS_KEY: "secret"}}}}},
    ],
    ids=lambda rest: str(next(iter(rest))),
)
def test_class_of_members_of_unusual_schemas_is_found(db: Database, rest: JsonObject) -> None:
    """A member is treated wherever a schema may class it."""
    version = tool("desk.issue.create", input_schema={"type": "object", **rest})

    found = stored(db, version, {"v": CANARY, "w": "open"})

    assert CANARY not in str(found)


@pytest.mark.parametrize(
    "rest",
    [
        {"prefixItems": [{"type": "string"}, {bodies.CLASS_KEY: "secret"}]},
        {"items": {"type": "string"}, "contains": {bodies.CLASS_KEY: "secret"}},
        {"prefixItems": [{"type": "string"}], "unevaluatedItems": {bodies.CLASS_KEY: "secret"}},
    ],
    ids=lambda rest: str([*rest][-1]),
)
def test_items_are_treated_as_the_strictest_of_their_schemas(
    db: Database, rest: JsonObject
) -> None:
    """Which schema an item falls under is not worked out: one that classes it is enough."""
    schema: JsonObject = {"type": "object", "properties": {"v": {"type": "array", **rest}}}

    found = stored(db, tool("desk.issue.create", input_schema=schema), {"v": ["open", CANARY]})

    assert {"v": [bodies.DROPPED, bodies.DROPPED]} == found


def test_endless_reference_ends(db: Database) -> None:
    """A schema that refers to itself or to nothing redacts what it can and ends."""
    schema: JsonObject = {
        "type": "object",
        "properties": {"v": {"$ref": "#/properties/v"}, "w": {"$ref": "#/nowhere"}},
    }

    found = stored(db, tool("desk.issue.create", input_schema=schema), {"v": "a", "w": "b"})

    assert {"v": "a", "w": "b"} == found


def test_result_is_redacted_by_the_output_contract(db: Database) -> None:
    """Results are stored under their own part, with their own contract."""
    version = tool(
        "desk.issue.create",
        output_schema={"type": "object", "properties": {"t": {bodies.CLASS_KEY: "secret"}}},
    )
    effect = replace(rows.effect(RUN_ID), result={"t": CANARY, "id": 1})

    db.run("test", lambda tx: bodies.write_result(tx, effect, version))

    with db.reading() as tx:
        found = bodies.list_for_run(tx, RUN_ID)
    assert {"file": {bodies.RESULT: {"t": bodies.DROPPED, "id": 1}}} == found
