"""Reads an OpenAPI document once and proposes manifests of its operations.

`servers` in the document is ignored, references that are not local are refused, and nothing of it
is used at run time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from interlock.domain.canonical import (
    DEFAULT_MAX_BYTES,
    MAX_DEPTH,
    Json,
    JsonObject,
    canonical,
    parse,
)
from interlock.domain.errors import InputError
from interlock.domain.pointer import read
from interlock.domain.tool import HttpRequest, Server
from interlock.tools.proposal import Draft, Proposal, propose, words_of
from interlock.tools.requests.http import FORM, check_request, is_settable

MAX_OPERATIONS = 500

_METHODS: Mapping[str, Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]] = {
    "get": "GET",
    "head": "HEAD",
    "post": "POST",
    "put": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
_READS = frozenset({"get", "head"})
_JSON_TYPE = re.compile(r"application/([a-z0-9.+-]+\+)?json(;.*)?", re.IGNORECASE)
_DEFS = "#/components/schemas/"


def from_openapi(text: str, server: Server, *, owner: str) -> Proposal:
    """Propose one tool for each operation of an OpenAPI 3 document (JSON or YAML).

    `GET` and `HEAD` are proposed as `read`, all else as `write` + `blind`. An operation that
    cannot be expressed is left out with a note. Raises `InputError` for what is no such document.
    """
    document = _document(text)
    paths = document.get("paths")
    if not str(document.get("openapi", "")).startswith("3.") or not isinstance(paths, dict):
        raise InputError("this is no OpenAPI 3 document with `paths`")
    proposals: list[Proposal] = []
    for path, method, shared, operation in _operations(paths):
        if len(proposals) == MAX_OPERATIONS:
            note = f"the document has more than {MAX_OPERATIONS} operations; the rest was left out"
            proposals.append(Proposal(files={}, notes=(note,)))
            break
        try:
            reading = _Operation(document=document, path=path, method=method, node=operation)
            proposals.append(propose(reading.draft(server, owner, shared)))
        except InputError as error:
            note = f"`{method.upper()} {path}` was left out: {error.message}"
            proposals.append(Proposal(files={}, notes=(note,)))
    return reduce(Proposal.join, proposals, Proposal(files={}))


@dataclass(slots=True, kw_only=True)
class _Operation:
    """One operation while it is read: what its arguments fill, and what they must be."""

    document: JsonObject
    path: str
    method: str
    node: JsonObject
    properties: JsonObject = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    path_args: JsonObject = field(default_factory=dict)
    query: JsonObject = field(default_factory=dict)
    headers: JsonObject = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def draft(self, server: Server, owner: str, shared: list[Json]) -> Draft:
        own = self.node.get("parameters")
        for parameter in (*shared, *(own if isinstance(own, list) else [])):
            self._parameter(self._resolved(parameter))
        body = self._body()
        request = self._request(body)
        arguments: JsonObject = {"type": "object", "properties": self.properties}
        if self.required:
            required: list[Json] = [*dict.fromkeys(self.required)]
            arguments["required"] = required
        upstream = self.node.get("operationId")
        named = upstream if isinstance(upstream, str) else f"{self.method} {self.path}"
        return Draft(
            server=server,
            owner=owner,
            words=words_of(named),
            upstream=f"{self.method.upper()} {self.path}",
            connector="http",
            reach={"request": request},
            input_schema=self._self_contained(arguments),
            output_schema=self._self_contained(self._output()),
            is_read=self.method in _READS,
            said=str(self.node.get("description") or self.node.get("summary") or ""),
            notes=tuple(self.notes),
        )

    def _parameter(self, parameter: JsonObject) -> None:
        name, place = str(parameter.get("name", "")), parameter.get("in")
        argument = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match(r"[A-Za-z_]", argument):
            argument = f"p_{argument}"
        at = f"in:/{argument}"
        is_required = parameter.get("required") is True or place == "path"
        if place == "path":
            self.path_args[argument] = at
        elif place == "query":
            self.query[name] = at
        elif place == "header" and is_settable(name) and is_required:
            self.headers[name] = at
        elif is_required:
            msg = f"its parameter `{name}` goes into `{place}`"
            raise InputError(msg)
        else:
            self.notes.append(f"the optional parameter `{name}` in `{place}` was left out")
            return
        schema = parameter.get("schema")
        self.properties[argument] = schema if isinstance(schema, dict) else {"type": "string"}
        if is_required:
            self.required.append(argument)

    def _request(self, body: Json) -> JsonObject:
        declared = HttpRequest(
            method=_METHODS[self.method],
            path=self._template(),
            path_args={name: str(at) for name, at in self.path_args.items()},
            headers={name: str(at) for name, at in self.headers.items()},
            body=body,
        )
        problems = check_request(declared)
        if problems:
            raise InputError("; ".join(problems))
        request: JsonObject = {"method": declared.method, "path": declared.path}
        for key, value in (
            ("path_args", self.path_args),
            ("query", self.query),
            ("headers", self.headers),
            ("body", body),
        ):
            if value:
                request[key] = value
        return request

    def _template(self) -> str:
        return re.sub(
            r"\{([^}]*)\}",
            lambda match: "{" + re.sub(r"\W", "_", match[1], flags=re.ASCII) + "}",
            self.path,
        )

    def _body(self) -> Json:
        given = self.node.get("requestBody")
        if given is None:
            return None
        body = self._resolved(given)
        content = body.get("content")
        kinds = content if isinstance(content, dict) else {}
        kind = next((kind for kind in kinds if _JSON_TYPE.fullmatch(kind)), None)
        if kind is None and FORM in kinds:
            kind = FORM
            self.headers["Content-Type"] = FORM
        if kind is None:
            msg = f"its body is {', '.join(sorted(kinds)) or 'of no declared type'}"
            raise InputError(msg)
        media = kinds[kind]
        schema = media.get("schema") if isinstance(media, dict) else None
        self.properties["body"] = schema if isinstance(schema, dict) else {"type": "object"}
        if body.get("required") is True:
            self.required.append("body")
        return "in:/body"

    def _output(self) -> JsonObject:
        responses = self.node.get("responses")
        for status, given in responses.items() if isinstance(responses, dict) else ():
            content = self._resolved(given).get("content") if status.startswith("2") else None
            for kind, media in content.items() if isinstance(content, dict) else ():
                schema = media.get("schema") if isinstance(media, dict) else None
                if _JSON_TYPE.fullmatch(kind) and isinstance(schema, dict):
                    return schema
        return {}

    def _resolved(self, node: Json) -> JsonObject:
        """Follow local references of parameters, bodies and responses."""
        for _ in range(8):
            if not isinstance(node, dict):
                break
            reference = node.get("$ref")
            if reference is None:
                return node
            node = read(self.document, _local(reference))
        raise InputError("it refers to something that is not there")

    def _self_contained(self, schema: JsonObject) -> JsonObject:
        """Return a schema with the definitions it needs, in the dialect of our contracts."""
        result = cast("JsonObject", _converted(schema))
        definitions: JsonObject = {}
        waiting = list(_references(result))
        while waiting:
            name = waiting.pop()
            if name not in definitions:
                found = _converted(read(self.document, f"/components/schemas/{name}"))
                definitions[name] = found
                waiting.extend(_references(found))
        return {**result, "$defs": definitions} if definitions else result


def _document(text: str) -> JsonObject:
    if len(text.encode()) > DEFAULT_MAX_BYTES:
        msg = f"the document has more than {DEFAULT_MAX_BYTES} bytes"
        raise InputError(msg)
    if text.lstrip().startswith("{"):
        value = parse(text)
    else:
        try:
            _check_events(text)
            value = parse(canonical(_plain(YAML(typ="safe", pure=True).load(text))))
        except (YAMLError, TypeError, ValueError) as error:
            msg = f"the document is no YAML: {str(error).partition(chr(10))[0]}"
            raise InputError(msg) from None
    if not isinstance(value, dict):
        raise InputError("the document is not an object")
    return value


def _check_events(text: str) -> None:
    """Refuse what would swell (aliases) or is so deep that building it takes very long."""
    depth = 0
    for event in YAML(pure=True).parse(text):
        if isinstance(event, AliasEvent):
            raise InputError("the document uses YAML aliases")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            msg = f"the document is nested deeper than {MAX_DEPTH} levels"
            raise InputError(msg)


def _plain(value: object) -> Json:
    """Turn YAML's integer keys (`200:`) and dates into text, as their authors meant them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _operations(paths: JsonObject) -> Iterator[tuple[str, str, list[Json], JsonObject]]:
    for path, item in paths.items():
        if isinstance(item, dict):
            shared = item.get("parameters")
            for method in _METHODS:
                operation = item.get(method)
                if isinstance(operation, dict):
                    yield path, method, shared if isinstance(shared, list) else [], operation


def _local(reference: Json) -> str:
    if isinstance(reference, str) and reference.startswith("#/"):
        return reference[1:]
    msg = f"the reference `{reference}` is not local"
    raise InputError(msg)


def _converted(node: Json) -> Json:
    """Turn what OpenAPI 3.0 says otherwise than JSON Schema 2020-12 into the latter."""
    if isinstance(node, list):
        return [_converted(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _converted(value) for key, value in node.items() if key != "nullable"}
    if "$ref" in made:
        pointer = _local(made["$ref"])
        if not pointer.startswith(_DEFS[1:]):
            msg = f"the reference `{made['$ref']}` is no schema of the document"
            raise InputError(msg)
        made["$ref"] = "#/$defs/" + pointer.removeprefix(_DEFS[1:])
    if node.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if made.get(bound) is True:
            made[bound] = made.pop(limit, None)
        elif made.get(bound) is False:
            del made[bound]
    return made


def _references(node: Json) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix("#/$defs/")
        for value in node.values():
            yield from _references(value)
