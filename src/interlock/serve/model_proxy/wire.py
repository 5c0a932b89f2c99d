"""What the two APIs share: how a request is checked and an answer is read, whatever its words."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from httpx2 import ServerSentEvent

from interlock.agents.upstream import Api
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError, NotFoundError


@dataclass(slots=True, kw_only=True)
class Told:
    """What a provider has told of its answer so far; tokens that it did not tell are None."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    characters: int = 0
    """Of the answer, from which its tokens are estimated if they are not told."""
    is_whole: bool = False
    problem: str | None = None
    """What the provider said that broke its answer off."""


class Reading(Protocol):
    """Reads the events of one streamed answer."""

    told: Told

    def take(self, event: ServerSentEvent) -> bytes | None:
        """Take note of an event; return what the agent is sent of it now.

        Raises `JsonError` if it cannot be read.
        """
        ...

    def end(self) -> bytes:
        """Return what ends the stream once its answer is recorded."""
        ...

    def reply(self) -> JsonObject:
        """Return the answer put together, as far as it came."""
        ...


class Wire(Protocol):
    """One API: the same towards agents and towards providers."""

    api: Api
    path: str
    """Of the request, below the address of the provider."""
    is_free: bool
    """Whether the provider takes nothing for its answer, which then has no tokens."""

    def checked(self, body: JsonObject) -> JsonObject:
        """Return what may be sent on of a request; raises `InputError` naming what may not."""
        ...

    def prepared(self, body: JsonObject, model: str) -> JsonObject:
        """Return a checked request as it goes to the provider, for its name of the model."""
        ...

    def most_output(self, body: JsonObject) -> int | None:
        """Return the most tokens of the answer that a request names; None if it names none."""
        ...

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of the caller that the API needs; raises `InputError`."""
        ...

    def read(self, body: JsonObject) -> Told:
        """Return what an answer that is not streamed tells."""
        ...

    def reading(self, request: JsonObject) -> Reading:
        """Return what reads the streamed answer to a request."""
        ...

    def error(self, status: int, code: str, message: str) -> JsonObject:
        """Return the body of an error."""
        ...

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """Return the event by which a stream breaks off."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Which members of a request are passed on, and which are left out as they say who asks."""

    passed: Collection[str]
    dropped: Collection[str] = field(default=frozenset())

    def of(self, body: JsonObject) -> JsonObject:
        """Return what is passed on; raises `InputError` for what is neither."""
        for name in body:
            if name not in self.passed and name not in self.dropped:
                raise InputError(f"`{name[:80]}` is not passed on to models; leave it out")
        return {name: value for name, value in body.items() if name in self.passed}


def objects(value: Json, what: str) -> Iterator[JsonObject]:
    """Yield the objects of a list; raises `InputError` if it is none."""
    if not isinstance(value, list):
        raise InputError(f"`{what}` is a list of objects")
    for item in value:
        if not isinstance(item, dict):
            raise InputError(f"`{what}` is a list of objects")
        yield item


def object_in(value: JsonObject, name: str) -> JsonObject:
    """Return a member that is an object; the empty one if it is not."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects_in(value: JsonObject, name: str) -> Iterator[JsonObject]:
    """Yield the objects of a member that is a list of them, whatever else it is."""
    found = value.get(name)
    yield from (item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()


def count_in(value: JsonObject, name: str) -> int | None:
    """Return a member that is a count; None if it is not."""
    found = value.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def text_in(value: JsonObject, name: str) -> str:
    """Return a member that is text; the empty one if it is not."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def positive(body: JsonObject, name: str) -> int | None:
    """Return a bound that a request names; raises `InputError` if it is no positive number."""
    if body.get(name) is None:
        return None
    found = count_in(body, name)
    if not found:
        raise InputError(f"`{name}` is a positive whole number")
    return found


def event(value: JsonObject, *, name: str | None = None) -> bytes:
    """Return an event of a stream, as it was parsed."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dumped(value)}\n\n".encode()


def dumped(value: Json) -> str:
    """Return JSON as it is sent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def unknown_model(name: Json) -> NotFoundError:
    """Return the refusal of a model, the same whether it exists or not."""
    told = f"`{name[:100]}`" if isinstance(name, str) and name else "without a name"
    return NotFoundError(f"there is no model {told} for this seat; ask for the list of models")
