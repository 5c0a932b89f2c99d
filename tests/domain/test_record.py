from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interlock.domain
from interlock.domain import record
from interlock.domain.canonical import Json, canonical_text
from interlock.domain.errors import InputError, Problem
from interlock.domain.label import Labels
from interlock.domain.record import from_json, object_to_json, to_json
from interlock.domain.tool import EffectSpec, Limits, Server, ToolVersion
from interlock.domain.workflow import Step

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SCALARS: dict[object, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(-(2**53) + 1, 2**53 - 1),
    float: st.floats(-1e9, 1e9),
    bool: st.booleans(),
    object: st.none() | st.booleans() | TEXTS | st.lists(TEXTS, max_size=2),
}


def _domain_dataclasses() -> list[type]:
    modules = [
        importlib.import_module(f"interlock.domain.{module.name}")
        for module in pkgutil.iter_modules(interlock.domain.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def _values(hint: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401  # hints are untyped
    """Return values of a type hint."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if isinstance(hint, typing.NewType):
        return _values(hint.__supertype__)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([st.none() if a is type(None) else _values(a) for a in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(_values(arguments[0]), max_size=2)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=2)
    if dataclasses.is_dataclass(hint):
        members = {name: _values(inner) for name, inner in record._hints(hint).items()}  # type: ignore[arg-type]  # a class
        return st.builds(hint, **members)  # type: ignore[arg-type]  # a class
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    return SCALARS[hint]


KINDS = [kind for kind in _domain_dataclasses() if kind is not Problem]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_noun_survives_being_stored(kind: type, data: st.DataObject) -> None:
    """Written as canonical text and read back, each noun is equal to what it was."""
    value = data.draw(_values(kind))

    assert value == from_json(kind, json.loads(canonical_text(to_json(value))))


@pytest.mark.parametrize("kind", _domain_dataclasses(), ids=lambda kind: kind.__name__)
def test_every_noun_is_a_frozen_value(kind: type) -> None:
    """Nouns cannot be changed, take no further members and are built by keyword."""
    params = vars(kind)["__dataclass_params__"]

    assert params.frozen
    assert "__slots__" in vars(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))


class _Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    names: frozenset[str] = frozenset()
    colours: tuple[_Colour, ...] = ()
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    note: str | None = None
    ratio: float = 0.5
    free: Any = None


def test_sets_become_sorted_lists() -> None:
    """The same value always has the same JSON: sets sorted, enums by value, None kept."""
    value = _Sample(names=frozenset("hgfedcba"), colours=(_Colour.RED,), free={"x": [1, True]})

    assert {
        "names": ["a", "b", "c", "d", "e", "f", "g", "h"],
        "colours": ["red"],
        "limits": {},
        "note": None,
        "ratio": 0.5,
        "free": {"x": [1, True]},
    } == object_to_json(value)


def test_value_without_json_form_is_refused() -> None:
    """What is not made of nouns and scalars is a mistake of ours, and said to be one."""
    with pytest.raises(TypeError, match="a `bytes` has no JSON form"):
        to_json(b"")
    with pytest.raises(TypeError, match="a `type` has no JSON form"):
        to_json(Labels)


def test_absent_members_take_their_defaults() -> None:
    """An older row, which lacks a member that came later, is still read."""
    assert Labels() == from_json(Labels, {})
    assert _Sample(ratio=1.0, free=[None]) == from_json(_Sample, {"ratio": 1, "free": [None]})
    assert ["a", "b"] == from_json(list[str], ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Labels, [], "expected an object at `/`, got `[]`"),
        (Labels, {"name": 1}, "unknown key `name` at `/`"),
        (Labels, {"names": "pii"}, "expected a list at `/names`, got `pii`"),
        (Labels, {"names": ["a", 2]}, "expected a str at `/names/1`, got `2`"),
        (Labels, {"is_untrusted": 1}, "expected a bool at `/is_untrusted`, got `1`"),
        (Limits, {"request_bytes": True}, "expected a int at `/request_bytes`, got `True`"),
        (Limits, {"request_bytes": 1.5}, "expected a int at `/request_bytes`, got `1.5`"),
        (Limits, {"timeout_s": True}, "expected a float at `/timeout_s`, got `True`"),
        (Step, {}, "`name` is missing at `/`"),
        (Step, {"name": "a", "rights": "x"}, "expected one of 'chain', 'own' at `/rights`"),
        (Step, {"name": "a", "share": 1}, "expected a str at `/share`, got `1`"),
        (EffectSpec, {"guard": {"kind": "version"}}, "`refused` is missing at `/guard`"),
        (EffectSpec, {"effect_class": ["x"]}, "expected one of `read`, `keyed`, `conditional`"),
        (_Sample, {"limits": []}, "expected an object at `/limits`, got `[]`"),
        (_Sample, {"limits": {"a/b~": 1}}, "expected an object at `/limits/a~1b~0`, got `1`"),
        (_Sample, {"limits": {"a": {"x": 1}}}, "unknown key `x` at `/limits/a`"),
        (_Sample, {"colours": ["green"]}, "expected one of `red`, `blue` at `/colours/0`"),
        (str, 7, "expected a str at `/`, got `7`"),
    ],
)
def test_misfit_is_named_with_its_pointer(kind: type, value: Json, expected: str) -> None:
    """What does not fit is refused with its place, what was expected and what came."""
    with pytest.raises(InputError) as caught:
        from_json(kind, value)

    assert caught.value.message.startswith(expected)


def test_long_value_is_cut_in_the_message() -> None:
    """A misfit shows at most 60 characters of what came."""
    with pytest.raises(InputError) as caught:
        from_json(int, "x" * 99)

    assert f"expected a int at `/`, got `{'x' * 60}`" == caught.value.message


def test_place_is_relative_to_what_the_caller_reads() -> None:
    """A caller that reads a part of a document names where the part begins."""
    with pytest.raises(InputError, match="unknown key `x` at `/steps/2`"):
        from_json(Limits, {"x": 1}, at="/steps/2")


def test_request_of_a_tool_takes_the_shape_that_fits() -> None:
    """A union is read as its first member that fits, and refused if none does."""
    hint = record._hints(ToolVersion)["request"]

    assert "McpCall" == type(record._convert(hint, {"upstream": "x"}, "")).__name__
    with pytest.raises(InputError, match="unknown key `url`"):
        record._convert(hint, {"url": "x"}, "")


def test_null_is_refused_where_it_is_not_declared() -> None:
    """Null fits only a member that may be None."""
    with pytest.raises(InputError, match="expected a str at `/name`, got `None`"):
        from_json(Server, {"name": None})
