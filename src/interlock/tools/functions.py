"""Tools that are Python functions: registered in code by name, with schemas from annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.ids import EffectId

ENTRY_POINTS = "interlock.functions"
Function = Callable[..., object]
"""Plain or `async`; what it returns must be JSON, which is checked on the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectContext:
    """What a writing function gets as its first argument.

    `key` is the same on every attempt of this effect: hand it to whatever can use it to recognise
    a repeat. `timeout_s` is what remains of its time. `secret` is the binding's credential.
    """

    effect_id: EffectId
    key: str
    attempt: int
    timeout_s: float
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionContract:
    """A function's name in manifests, its first line of words and its contract."""

    name: str
    title: str
    input_schema: JsonObject
    output_schema: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFunction(FunctionContract):
    """A registered function: its name in manifests, its code and the contract of its arguments."""

    function: Function
    takes_context: bool


def python_function(name: str, function: Function) -> PythonFunction:
    """Register a function (plain or `async`) as a tool's code; its parameters need annotations.

    Its first parameter may be an `EffectContext`. Arguments arrive as JSON by name, and the
    result must be JSON. Raises `InputError` for a signature that has no JSON Schema.
    """
    # Not `get_type_hints`: it would unfold the recursive type `Json`.
    signature = inspect.signature(function, eval_str=True)
    members: dict[str, tuple[object, object]] = {}
    takes_context = False
    for index, parameter in enumerate(signature.parameters.values()):
        hint = _known(parameter.annotation)
        if index == 0 and hint is EffectContext:
            takes_context = True
        elif hint is inspect.Parameter.empty or parameter.kind in {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }:
            msg = f"parameter `{parameter.name}` of `{name}` needs a name and an annotation"
            raise InputError(msg)
        else:
            is_required = parameter.default is inspect.Parameter.empty
            members[parameter.name] = (hint, FieldInfo() if is_required else parameter.default)
    return PythonFunction(
        name=name,
        title=(inspect.getdoc(function) or name).partition("\n")[0],
        function=function,
        takes_context=takes_context,
        input_schema=_input_schema(name, members),
        output_schema=_output_schema(name, _known(signature.return_annotation)),
    )


def installed_functions() -> dict[str, PythonFunction]:
    """Return the functions that installed packages offer, by name.

    A package names them as entry points of the group `interlock.functions`: the name is that of
    manifests, the value leads to the function. Raises `InputError` for one that does not load.
    """
    found: list[PythonFunction] = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            function = entry.load()
        except (ImportError, AttributeError) as error:
            msg = f"the function `{entry.name}` of `{entry.value}` does not load: {error}"
            raise InputError(msg) from None
        found.append(python_function(entry.name, function))
    return functions_by_name(found)


def functions_by_name(functions: Iterable[PythonFunction]) -> dict[str, PythonFunction]:
    """Index functions by name; raises `InputError` if two have the same."""
    found: dict[str, PythonFunction] = {}
    for function in functions:
        if function.name in found:
            msg = f"two functions are registered as `{function.name}`"
            raise InputError(msg)
        found[function.name] = function
    return found


def _known(hint: object) -> object:
    """Replace our JSON types, whose recursion pydantic cannot unfold."""
    if hint == Json:
        return Any
    return dict[str, Any] if hint == JsonObject else hint


def _input_schema(name: str, members: dict[str, tuple[object, object]]) -> JsonObject:
    try:
        model = create_model(  # type: ignore[call-overload]
            # The overloads of `create_model` cannot say "names that are known at run time".
            name.replace(".", "_"),
            __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False),
            **members,
        )
        schema: JsonObject = model.model_json_schema()
    except PydanticUserError as error:
        msg = f"the parameters of `{name}` have no JSON Schema: {error.message}"
        raise InputError(msg) from None
    return _without_titles(schema)


def _output_schema(name: str, hint: object) -> JsonObject:
    if hint is inspect.Parameter.empty:
        hint = object
    try:
        # The hint is only known at run time, so its type cannot be named here.
        adapter: TypeAdapter[object] = TypeAdapter(cast("type[object]", hint))
        schema = adapter.json_schema(mode="serialization")
    except PydanticUserError as error:
        msg = f"the result of `{name}` has no JSON Schema: {error.message}"
        raise InputError(msg) from None
    return _without_titles(cast("JsonObject", schema))


def _without_titles(schema: JsonObject) -> JsonObject:
    """Drop the titles that pydantic makes up from names."""
    kept = {key: value for key, value in schema.items() if key != "title"}
    for key in ("properties", "$defs"):
        named = kept.get(key)
        if isinstance(named, dict):
            kept[key] = {
                name: _without_titles(item) if isinstance(item, dict) else item
                for name, item in named.items()
            }
    return kept
