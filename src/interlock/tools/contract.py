"""Contracts of tools: JSON Schema 2020-12 for what goes in and what comes out, compiled once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import cast
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from interlock.domain.canonical import MAX_DEPTH as VALUE_DEPTH
from interlock.domain.canonical import Json, JsonObject, canonical, parse
from interlock.domain.errors import ContractError
from interlock.domain.pointer import escaped

MAX_DEPTH = 16
MAX_NODES = 2000
MAX_COMBINATORS = 64
MAX_PATTERN = 1024
MAX_WORK = 100_000
"""How often the parts of a schema may be applied on the way to one place of a value."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REPORTED = 5
_MESSAGE_LENGTH = 200
# Where schemas stand inside a schema; everything else in it (`enum`, `const`, `default`) is data.
_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
_COMBINATORS = frozenset({"allOf", "anyOf", "if", "not", "oneOf"})
_NARROWING = _COMBINATORS | {"contains", "dependentSchemas", "else", "propertyNames", "then"}
_CONSTRAINING = frozenset({"$ref", "anyOf", "const", "enum", "oneOf", "type"})
# What such a keyword says of a value is true whatever stands in some of its members.
_OF_FORM = frozenset(
    {"additionalProperties", "maxItems", "maxProperties", "minItems", "minProperties"}
    | {"required", "type"}
)
# Keywords whose schemas judge the same value, members of an object, items of an array.
_IN_PLACE = frozenset({"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
_OF_MEMBERS = frozenset(
    {"additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties"}
)
_OF_ITEMS = frozenset({"contains", "items", "unevaluatedItems"})
_UNEVALUATED = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_LONGEST_CHAIN = 128
_CONDITIONAL = frozenset({"dependentSchemas", "else", "then"})
_FOREIGN = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$vocabulary"})


class Contract:
    """One compiled schema. Regular expressions run in linear time; nothing is fetched."""

    def __init__(self, schema: JsonObject) -> None:
        try:
            self._validator = Draft202012Validator(
                schema,
                validate_formats=True,
                pattern_options=RegexOptions(),
                offline=True,
                # Messages reach rows and logs; what was sent does not belong there.
                mask="the value",
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            msg = f"the schema cannot be used: {_first_line(str(error))}"
            raise ContractError(msg) from None

    @staticmethod
    def of(schema: JsonObject) -> Contract:
        """Return the contract of a schema, compiled at its first use and kept by content."""
        return _compiled(canonical(schema))

    def check(self, value: Json, what: str) -> None:
        """Raise `ContractError` unless `value` fits; `what` names the value in the message.

        The message lists at most five things to mend, so that an agent can mend them together;
        the error's `pointer` is the place of the first.
        """
        _refuse(list(islice(self._validator.iter_errors(value), _REPORTED)), what)

    def check_known(self, value: Json, what: str, *, unknown: Collection[str]) -> None:
        """Do as `check` for a value of which some places are not known yet.

        `unknown` are their pointers. What the schema says of those, or decides by them, is left
        to the check of the whole value.
        """
        errors = (e for e in self._validator.iter_errors(value) if _is_certain(e, unknown))
        _refuse(list(islice(errors, _REPORTED)), what)


def _refuse(errors: Sequence[ValidationError], what: str) -> None:
    if errors:
        listed = "; ".join(f"`{_pointer(e) or '/'}`: {_first_line(e.message)}" for e in errors)
        msg = f"the {what} cannot be accepted: {listed}"
        raise ContractError(msg, pointer=_pointer(errors[0]))


def _is_certain(error: ValidationError, unknown: Collection[str]) -> bool:
    """Return whether a value is wrong whatever will stand at the unknown places."""
    if not _CONDITIONAL.isdisjoint(map(str, error.schema_path)):
        return False
    at, keyword = f"{_pointer(error)}/", str(error.schema_path[-1]) if error.schema_path else ""
    for place in unknown:
        is_inside = at.startswith(f"{place}/")
        is_above = f"{place}/".startswith(at)
        if is_inside or (is_above and keyword not in _OF_FORM):
            return False
    return True


def check_schema(schema: JsonObject, *, must_be_closed: bool = False) -> tuple[str, ...]:
    """Return what is wrong with a schema, as sentences; none if it can serve as a contract.

    Bounded are depth, size, combinators and patterns; references stay inside the document. With
    `must_be_closed` (input of a writing tool) every object names all its members and every
    value has a type, so that policy sees all that is sent.
    """
    problems: list[str] = []
    nodes = combinators = 0
    for place in _places(_Place(pointer="", node=schema)):
        nodes += 1
        combinators += len(_COMBINATORS & place.node.keys())
        problems.extend(_node_problems(place))
        if must_be_closed and not place.is_narrowing:
            problems.extend(_open_problems(place))
    if nodes > MAX_NODES:
        problems.append(f"the schema has more than {MAX_NODES} parts")
    if combinators > MAX_COMBINATORS:
        problems.append(f"the schema has more than {MAX_COMBINATORS} combinators")
    if not problems:
        try:
            Contract(schema)
            _Work(schema).check()
        except ContractError as error:
            problems.append(error.message)
    return tuple(problems)


@lru_cache(maxsize=1024)
def _compiled(text: bytes) -> Contract:
    return Contract(cast("JsonObject", parse(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A sub-schema and where it stands; `is_narrowing` if it only narrows a schema above it."""

    pointer: str
    node: JsonObject
    depth: int = 0
    is_narrowing: bool = False

    def __str__(self) -> str:
        return self.pointer or "/"


def _places(place: _Place) -> Iterator[_Place]:
    """Yield every sub-schema that is an object, the root first, one level below the bound too."""
    yield place
    if place.depth > MAX_DEPTH:
        return
    for key, name, item in _children(place.node):
        if isinstance(item, dict):
            is_choice = key in {"anyOf", "oneOf"} and "type" not in place.node
            yield from _places(
                _Place(
                    pointer=f"{place.pointer}/{key}{name}",
                    node=item,
                    depth=place.depth + 1,
                    is_narrowing=place.is_narrowing or (key in _NARROWING and not is_choice),
                )
            )


def _children(schema: JsonObject) -> Iterator[tuple[str, str, Json]]:
    for key, value in schema.items():
        if key in _ONE:
            yield key, "", value
        elif key in _MANY and isinstance(value, list):
            yield from ((key, f"/{index}", item) for index, item in enumerate(value))
        elif key in _NAMED and isinstance(value, dict):
            yield from ((key, f"/{escaped(name)}", item) for name, item in value.items())


def _node_problems(place: _Place) -> Iterator[str]:
    node = place.node
    if place.depth > MAX_DEPTH:
        yield f"the schema is nested deeper than {MAX_DEPTH} levels at `{place}`"
    for key in sorted(_FOREIGN & node.keys()):
        yield f"`{key}` at `{place}` is not accepted: use `$defs` and `#/$defs/...`"
    reference = node.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        yield f"the reference `{reference}` at `{place}` leaves the document"
    if node.get("$schema", _DIALECT) != _DIALECT:
        yield f"`$schema` at `{place}` must be `{_DIALECT}`"
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
        yield f"the pattern at `{place}` is longer than {MAX_PATTERN} characters"


def _open_problems(place: _Place) -> Iterator[str]:
    node, types = place.node, place.node.get("type")
    is_object = types == "object" or (isinstance(types, list) and "object" in types)
    is_closed = False in (node.get("additionalProperties"), node.get("unevaluatedProperties"))
    if (is_object or "properties" in node) and not is_closed:
        yield f"the object at `{place}` is open: add `additionalProperties: false`"
    if not _CONSTRAINING & node.keys():
        yield f"the value at `{place}` may be anything: give it a `type`"
    members = node.get("properties")
    for name, item in members.items() if isinstance(members, dict) else ():
        if item is True:
            yield f"the value at `{place}/properties/{name}` may be anything: give it a `type`"


def _pointer(error: ValidationError) -> str:
    return "".join(f"/{escaped(str(part))}" for part in error.instance_path)


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _MESSAGE_LENGTH else line[:_MESSAGE_LENGTH] + "..."


class _Work:
    """How much work a schema can make of a value, level by level from the innermost.

    References let a short schema say the same thing twice, twice over. A place of a value is an
    object or an array, so each part has a weight for either.
    """

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._parts = self._reachable()
        self._below = {id(part): (0, 0) for part in self._parts}
        self._here: dict[int, tuple[int, int]] = {}

    def check(self) -> None:
        """Raise `ContractError` if it can be too much."""
        for _ in range(VALUE_DEPTH):
            self._here = {}
            for part in self._parts:
                if max(self._weighed(part, 0)) > MAX_WORK:
                    msg = (
                        f"the schema can be applied more than {MAX_WORK} times to one place of a "
                        "value: use fewer references inside combinators"
                    )
                    raise ContractError(msg)
            if self._here == self._below:
                return
            self._below = self._here

    def _reachable(self) -> list[JsonObject]:
        found = {id(self._root): self._root}
        waiting = [self._root]
        while waiting:
            for _, part in self._inside(waiting.pop()):
                if id(part) not in found:
                    found[id(part)] = part
                    waiting.append(part)
        return list(found.values())

    def _inside(self, part: JsonObject) -> Iterator[tuple[str, JsonObject]]:
        yield from ((key, item) for key, _, item in _children(part) if isinstance(item, dict))
        target = _referred(self._root, part.get("$ref"))
        if target is not None:
            yield "$ref", target

    def _weighed(self, part: JsonObject, chain: int) -> tuple[int, int]:
        known = self._here.get(id(part))
        if known is not None:
            return known
        if chain > _LONGEST_CHAIN:
            msg = f"the schema refers to itself, or on and on, more than {_LONGEST_CHAIN} times"
            raise ContractError(msg)
        as_object = as_array = 1
        member = item = 0
        for key, child in self._inside(part):
            if key in _IN_PLACE or key == "$ref":
                of_object, of_array = self._weighed(child, chain + 1)
                as_object, as_array = as_object + of_object, as_array + of_array
        if _UNEVALUATED & part.keys():
            # What was evaluated is found out by going through it once more.
            as_object, as_array = 2 * as_object, 2 * as_array
        for key, child in self._inside(part):
            weight = max(self._below[id(child)])
            if key in _OF_MEMBERS:
                as_object += weight
            elif key in _OF_ITEMS:
                as_array += weight
            elif key == "properties":
                member = max(member, weight)
            elif key == "prefixItems":
                item = max(item, weight)
        self._here[id(part)] = as_object + member, as_array + item
        return self._here[id(part)]


def _referred(root: JsonObject, reference: Json) -> JsonObject | None:
    """Return what a local reference leads to; None if there is no such schema."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Json = root
    for name in unquote(reference[1:]).split("/")[1:]:
        part = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found if isinstance(found, dict) else None
