"""Frozen dataclasses to JSON and back by their type hints, for rows and manifests alike."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.pointer import escaped

T = TypeVar("T")


def to_json(value: object) -> Json:
    """Render a value made of dataclasses, enums, tuples, sets, mappings and scalars as JSON.

    Sets become sorted lists; members that are None are kept, so that the form is stable.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return cast("Json", value.value)
    if isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted((to_json(item) for item in value), key=str)
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    msg = f"a `{type(value).__name__}` has no JSON form"
    raise TypeError(msg)


def object_to_json(value: object) -> JsonObject:
    """Render a dataclass as a JSON object."""
    rendered = to_json(value)
    # INVARIANT: only dataclasses and mappings are passed here, and both render as objects.
    assert isinstance(rendered, dict)
    return rendered


def from_json(kind: type[T], value: Json, *, at: str = "") -> T:
    """Build a `kind` from JSON; raises `InputError` naming the pointer of what does not fit.

    Unknown members are refused; absent ones take the dataclass default.
    """
    return cast("T", _convert(kind, value, at))


def _convert(hint: Any, value: Json, at: str) -> object:  # noqa: ANN401  # hints are untyped
    if hint is Any or hint is object:
        return value
    if isinstance(hint, typing.NewType):
        return _convert(hint.__supertype__, value, at)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, at)
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise _misfit(at, f"one of {', '.join(map(repr, typing.get_args(hint)))}", value)
    if origin is not None:
        return _collection(origin, typing.get_args(hint), value, at)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, at)
    return _scalar(hint, value, at)


def _scalar(hint: Any, value: Json, at: str) -> object:  # noqa: ANN401  # hints are untyped
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            choices = ", ".join(f"`{member.value}`" for member in hint)
            raise _misfit(at, f"one of {choices}", value) from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _misfit(at, f"a {hint.__name__}", value)


def _union(hint: Any, value: Json, at: str) -> object:  # noqa: ANN401  # hints are untyped
    choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    if value is None and len(choices) < len(typing.get_args(hint)):
        return None
    errors: list[InputError] = []
    for choice in choices:
        try:
            return _convert(choice, value, at)
        except InputError as error:
            errors.append(error)
    raise errors[-1]


def _collection(origin: Any, args: tuple[Any, ...], value: Json, at: str) -> object:  # noqa: ANN401
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _misfit(at, "an object", value)
        return {
            _convert(args[0], key, at): _convert(args[1], item, _below(at, key))
            for key, item in value.items()
        }
    if not isinstance(value, list):
        raise _misfit(at, "a list", value)
    items = [_convert(args[0], item, f"{at}/{index}") for index, item in enumerate(value)]
    return frozenset(items) if origin is frozenset else tuple(items) if origin is tuple else items


def _dataclass(kind: Any, value: Json, at: str) -> object:  # noqa: ANN401  # as above
    if not isinstance(value, dict):
        raise _misfit(at, "an object", value)
    hints = _hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        msg = f"unknown key `{unknown[0]}` at `{at or '/'}`"
        raise InputError(msg)
    members = {key: _convert(hints[key], item, _below(at, key)) for key, item in value.items()}
    for field in dataclasses.fields(kind):
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in members and not has_default:
            msg = f"`{field.name}` is missing at `{at or '/'}`"
            raise InputError(msg)
    return kind(**members)


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _hints(kind: type[object]) -> dict[str, Any]:
    # `Json` is a recursive alias, which `typing` unrolls only once; its values are taken as is.
    plain = {"Json": object, "JsonObject": dict[str, object]}
    return typing.get_type_hints(kind, localns=plain)


def _below(at: str, key: str) -> str:
    return f"{at}/{escaped(key)}"


def _misfit(at: str, wanted: str, value: Json) -> InputError:
    return InputError(f"expected {wanted} at `{at or '/'}`, got `{str(value)[:60]}`")
