"""What policies read about a call: the server's facts, and values derived from its arguments.

A derived value is what Cedar cannot compute (the domain of an address, the host of a URL, a
length, the hundredths of an amount): a named pure function over one argument, declared in the
tool's manifest. An argument that the function cannot read is an error, and an error is a deny: a
guardrail must never be passed by a malformed address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.clock import iso
from interlock.domain.decision import Facts
from interlock.domain.errors import InputError
from interlock.domain.pointer import read
from interlock.policy.shape import Scalar, SetOf, Shape

_CALL = re.compile(r"(?P<function>[a-z_]+)\((?P<pointer>/[^()]*)\)")
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# No user part, backslash, blank or control character: those are what parsers disagree about.
_PLAIN_URL = re.compile(r"(?i:https?)://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:[/?#][!-\[\]-~]*)?")
_AMOUNT = re.compile(r"(-?)([0-9]{1,13})(?:\.([0-9]{1,2}))?")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@(?P<domain>[A-Za-z0-9.-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """One declared value: the function's name, its argument's pointer and the Cedar type."""

    function: str
    pointer: str
    shape: Shape

    def of(self, arguments: JsonObject) -> Json:
        """Compute the value; None if the argument is absent or null, `InputError` if malformed."""
        try:
            value = read(arguments, self.pointer)
        except InputError:
            return None
        if value is None:
            return None
        try:
            return _FUNCTIONS[self.function][0](value)
        except ValueError as error:
            msg = f"`{self.pointer}` {error}, so policy cannot judge it"
            raise InputError(msg) from None


def parse_derived(text: str) -> Derived:
    """Read `<function>(<pointer>)`, for instance `domain(/to)`; raises `InputError`."""
    match = _CALL.fullmatch(text)
    if match is None or match["function"] not in _FUNCTIONS:
        known = ", ".join(f"`{name}(/pointer)`" for name in _FUNCTIONS)
        msg = f"`{text}` is no derived value; known are {known}"
        raise InputError(msg)
    function = match["function"]
    return Derived(function=function, pointer=match["pointer"], shape=_FUNCTIONS[function][1])


FACT_TYPES: Mapping[str, JsonObject] = MappingProxyType(
    {
        "lifted": {"type": "Set", "element": {"type": "String"}},
        "user": {
            "type": "Record",
            "required": False,
            "attributes": {"name": {"type": "String"}},
        },
        "labels": {"type": "Set", "element": {"type": "Entity", "name": "Label"}},
        "tenants": {"type": "Set", "element": {"type": "Entity", "name": "Tenant"}},
        "untrusted": {"type": "Boolean"},
        "calls_this_tool": {"type": "Long"},
        "calls_this_tool_1h": {"type": "Long"},
        "writes_this_run": {"type": "Long"},
        "same_key_count": {"type": "Long"},
        "failures_this_tool": {"type": "Long"},
        "done": {"type": "Set", "element": {"type": "String"}},
        "depth": {"type": "Long"},
        "budget_left_micros": {"type": "Long"},
        "now": {"type": "Extension", "name": "datetime"},
    }
)
"""Attributes of every context, as types of Cedar's JSON schema format."""


def facts_context(facts: Facts, *, lifted: frozenset[str]) -> JsonObject:
    """Render facts as the context that `FACT_TYPES` declares."""
    context: JsonObject = {
        "lifted": _texts(lifted),
        "labels": [_entity("Label", name) for name in sorted(facts.labels.names)],
        "tenants": [_entity("Tenant", name) for name in sorted(facts.labels.tenants)],
        "untrusted": facts.labels.is_untrusted,
        "calls_this_tool": facts.calls_this_tool,
        "calls_this_tool_1h": facts.calls_this_tool_1h,
        "writes_this_run": facts.writes_this_run,
        "same_key_count": facts.same_key_count,
        "failures_this_tool": facts.failures_this_tool,
        "done": _texts(facts.done),
        "depth": facts.depth,
        "budget_left_micros": facts.budget_left_micros,
        "now": {"__extn": {"fn": "datetime", "arg": iso(facts.now_us)}},
    }
    if facts.user is not None:
        context["user"] = {"name": facts.user}
    return context


def _texts(names: frozenset[str]) -> list[Json]:
    return [*sorted(names)]


def _entity(kind: str, name: str) -> JsonObject:
    return {"__entity": {"type": kind, "id": name}}


def _length(value: Json) -> Json:
    if isinstance(value, str | list):
        return len(value)
    msg = "is neither text nor a list"
    raise ValueError(msg)


def _domain(value: Json) -> Json:
    """Return the domain of one bare address; quoted local parts and display names are refused."""
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not _HOST.fullmatch(match["domain"].lower()):
        msg = "is not one plain mail address"
        raise ValueError(msg)
    return match["domain"].lower()


def _domains(value: Json) -> Json:
    if not isinstance(value, list):
        msg = "is not a list of mail addresses"
        raise ValueError(msg)  # noqa: TRY004  # bad input, not a bad type in our code
    return [*sorted({str(_domain(item)) for item in value})]


def _host(value: Json) -> Json:
    """Return the host of an absolute http(s) URL; what two parsers may read apart is refused."""
    if isinstance(value, str) and _PLAIN_URL.fullmatch(value):
        host = urlsplit(value).hostname or ""
        if _HOST.fullmatch(host):
            return host
    msg = "is not a plain http(s) URL"
    raise ValueError(msg)


def _hundredths(value: Json) -> Json:
    """Return an amount of money, a text as `-12.5`, as a whole number: -1250."""
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = "is not a decimal number with at most two places, as text"
        raise ValueError(msg)
    sign, whole, places = match.groups(default="")
    return int(f"{sign}{whole}{places:0<2}")


_FUNCTIONS: Mapping[str, tuple[Callable[[Json], Json], Shape]] = MappingProxyType(
    {
        "length": (_length, Scalar(kind="Long")),
        "domain": (_domain, Scalar(kind="String")),
        "domains": (_domains, SetOf(item=Scalar(kind="String"))),
        "host": (_host, Scalar(kind="String")),
        "hundredths": (_hundredths, Scalar(kind="Long")),
    }
)
