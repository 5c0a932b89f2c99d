"""Registered functions: what their signatures become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.ids import EffectId
from interlock.tools.contract import check_schema
from interlock.tools.functions import (
    EffectContext,
    functions_by_name,
    installed_functions,
    python_function,
)

Install = Callable[[str, str], None]


def pay(
    context: EffectContext, amount: int, to: str, note: str = "", kind: Literal["a", "b"] = "a"
) -> dict[str, int]:
    """Pay somebody.

    More about it.
    """
    del context, to, note, kind
    return {"paid": amount}


def test_signature_becomes_a_closed_contract() -> None:
    """Names, types and defaults are the schema; the context is not an argument."""
    made = python_function("pay", pay)

    expected: JsonObject = {
        "type": "object",
        "additionalProperties": False,
        "required": ["amount", "to"],
        "properties": {
            "amount": {"type": "integer"},
            "to": {"type": "string"},
            "note": {"type": "string", "default": ""},
            "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
        },
    }
    assert expected == made.input_schema
    assert {"type": "object", "additionalProperties": {"type": "integer"}} == made.output_schema
    assert ("Pay somebody.", True) == (made.title, made.takes_context)
    assert () == check_schema(made.input_schema, must_be_closed=True)


def test_json_is_a_type_that_may_be_anything() -> None:
    """Our own JSON types and a missing result annotation say nothing about the shape."""

    def echo(value: Json, members: JsonObject):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return [value, members]

    made = python_function("echo", echo)

    members: JsonObject = {"type": "object", "additionalProperties": True}
    assert {"value": {}, "members": members} == made.input_schema["properties"]
    assert {} == made.output_schema


def test_parameter_without_annotation_is_refused() -> None:
    """What has no type cannot have a contract."""

    def loose(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return value

    def variable(*values: int) -> None:
        del values

    for function in (loose, variable):
        with pytest.raises(InputError):
            python_function("loose", function)


def test_type_without_schema_is_refused() -> None:
    """Only what JSON can carry may be an argument or a result."""

    def opaque(value: type) -> None:
        del value

    class Thing:
        pass

    def thing(value: Thing) -> None:
        del value

    thing.__annotations__["value"] = Thing

    for function in (opaque, thing):
        with pytest.raises(InputError, match="no JSON Schema"):
            python_function("opaque", function)


def test_two_functions_cannot_share_a_name() -> None:
    """A name in a manifest means one function."""
    made = python_function("pay", pay)

    assert {"pay": made} == functions_by_name([made])
    with pytest.raises(InputError, match="two functions"):
        functions_by_name([made, made])


def test_secret_is_not_in_the_text_of_a_context() -> None:
    """A context that is printed by mistake tells no secret."""
    context = EffectContext(
        effect_id=EffectId("e"), key="k", attempt=1, timeout_s=1.0, secret="s3cret"
    )

    assert "s3cret" not in repr(context)


CONVERT = 'def convert(amount: int) -> dict[str, int]:\n    """Convert."""\n    return {}\n'


def test_installed_packages_offer_functions(install_functions: Install) -> None:
    """By the name of the entry point, with the contract of the signature."""
    install_functions("money.convert = shop_tools:convert", CONVERT)

    found = installed_functions()

    assert ["money.convert"] == list(found)
    assert {"amount": {"type": "integer"}} == found["money.convert"].input_schema["properties"]


def test_a_function_that_does_not_load_is_named(install_functions: Install) -> None:
    """The sentence says which package to mend."""
    install_functions("money.convert = shop_tools:missing", CONVERT)

    with pytest.raises(InputError, match=r"`money\.convert` of `shop_tools:missing` does not load"):
        installed_functions()
