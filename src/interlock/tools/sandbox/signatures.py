"""Contracts of untrusted functions from their annotations, made where the code is: inside."""

from __future__ import annotations

import inspect
import types
import typing

_PLAIN: dict[object, dict[str, object]] = {
    typing.Any: {},
    object: {},
    inspect.Parameter.empty: {},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    list: {"type": "array"},
    dict: {"type": "object"},
}


def of_module(module: types.ModuleType) -> list[dict[str, object]]:
    """Describe the public functions that a module defines.

    Raises `TypeError` for a signature that has no JSON Schema.
    """
    return [
        _of_function(f"{module.__name__}.{name}", function)
        for name, function in sorted(vars(module).items())
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _of_function(name: str, function: types.FunctionType) -> dict[str, object]:
    signature = inspect.signature(function, eval_str=True)
    if inspect.iscoroutinefunction(function):
        msg = f"`{name}` is `async`; nothing can be waited for inside, so write a plain function"
        raise TypeError(msg)
    properties: dict[str, object] = {}
    required: list[str] = []
    for index, parameter in enumerate(signature.parameters.values()):
        if index == 0 and parameter.name == "context":
            continue
        is_named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if not is_named or parameter.annotation is parameter.empty:
            msg = f"parameter `{parameter.name}` of `{name}` needs a name and an annotation"
            raise TypeError(msg)
        properties[parameter.name] = _schema(parameter.annotation, name)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return {
        "name": name,
        "title": (inspect.getdoc(function) or name).partition("\n")[0][:200],
        "input": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        "output": _schema(signature.return_annotation, name),
    }


def _schema(hint: object, name: str) -> dict[str, object]:
    """Return what JSON says of a type: plain ones, lists, dicts, `Literal` and unions of them."""
    if hint is None:
        return {"type": "null"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return {"type": "array", "items": _schema(inner[0], name)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _schema(inner[1], name)}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_schema(one, name) for one in inner]}
    if origin is None and hint in _PLAIN:
        return dict(_PLAIN[hint])
    msg = f"`{name}` uses the type `{hint}`; use str, int, float, bool, None, list, dict or Literal"
    raise TypeError(msg)
