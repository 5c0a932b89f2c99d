"""Looks at what an MCP server or registered functions offer, and proposes manifests of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import cast

from mcp_types import Prompt, Resource, ResourceTemplate, Tool

from interlock.domain import uri
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError
from interlock.domain.tool import McpCall, McpKind, Server
from interlock.tools.connectors.mcp.connector import McpConnector
from interlock.tools.functions import FunctionContract
from interlock.tools.proposal import Draft, Proposal, propose, words_of
from interlock.tools.upstream import KINDS, TOOLS, Offer, call_of, definitions, pin_of


def _listing(member: str, properties: Mapping[str, str], *required: str) -> JsonObject:
    """Return a contract: a list of objects that have these members, of these types if at all."""
    typed: JsonObject = {name: {"type": kind} for name, kind in properties.items()}
    item: JsonObject = {"type": "object", "properties": typed, "required": [*required]}
    listed: JsonObject = {member: {"type": "array", "items": item}}
    return {"type": "object", "properties": listed, "required": [member]}


CONTENT_SCHEMA: JsonObject = _listing("content", {"type": "string", "text": "string"}, "type")
"""What a result without structured content becomes: the list of its content blocks."""
_CONTENTS_SCHEMA = _listing(
    "contents",
    {"uri": "string", "mimeType": "string", "text": "string", "blob": "string"},
    "uri",
)
_MESSAGES_SCHEMA = _listing("messages", {"role": "string", "content": "object"}, "role", "content")
_VERBS: Mapping[McpKind, tuple[str, ...]] = {"tool": (), "resource": ("read",), "prompt": ("get",)}


async def from_mcp(
    server: Server,
    *,
    owner: str,
    kinds: Collection[McpKind] = TOOLS,
    secret: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Proposal:
    """Ask an MCP server, which must be a registered entry, for what it offers of some kinds.

    Annotations are not read: every tool is proposed as `write` + `blind`; resources and prompts
    read by what they are. Raises `UnavailableError` if the server cannot be reached.
    """
    found = await offered(server, KINDS, secret=secret, variables=variables)
    pins = {name: pin_of(one) for name, one in definitions(found).items()}
    calls = [(offer, call_of(offer)) for offer in found]
    taken = _joined(
        _of_mcp(server, owner, offer, replace(call, pin=pins[call.offer]))
        for offer, call in calls
        if call.kind in kinds
    )
    left = Counter(call.kind for _, call in calls if call.kind not in kinds)
    notes = tuple(
        f"the server also offers {count} {kind}{'s' * (count > 1)}: take them with `--{kind}s`"
        for kind, count in left.items()
    )
    return replace(taken, notes=(*taken.notes, *notes))


async def offered(
    server: Server,
    kinds: Collection[McpKind] = TOOLS,
    *,
    secret: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[Offer]:
    """Return what an MCP server offers now; raises `UnavailableError`."""
    connector = McpConnector(server, variables=variables)
    try:
        return await connector.list_offers(kinds, secret=secret)
    finally:
        await connector.aclose()


def from_functions(
    functions: Iterable[FunctionContract], server: Server, *, owner: str
) -> Proposal:
    """Propose one tool for each function, registered or of a sandbox."""
    return _joined(
        propose(
            Draft(
                server=server,
                owner=owner,
                words=words_of(function.name),
                upstream=function.name,
                connector="python",
                reach={"function": function.name},
                input_schema=function.input_schema,
                output_schema=function.output_schema,
                said=function.title,
            )
        )
        for function in functions
    )


def _of_mcp(server: Server, owner: str, offer: Offer, call: McpCall) -> Proposal:
    try:
        arguments, output = _contract(offer)
    except InputError as error:
        return Proposal(files={}, notes=(f"`{call.offer}` was left out: {error.message}",))
    upstream: JsonObject = {call.kind: call.upstream}
    if call.pin is not None:
        upstream["pin"] = call.pin
    return propose(
        Draft(
            server=server,
            owner=owner,
            words=(*words_of(offer.name), *_VERBS[call.kind]),
            upstream=call.upstream,
            connector="mcp",
            reach={"upstream": upstream},
            input_schema=arguments,
            output_schema=output,
            is_read=call.kind != "tool",
            said=offer.description or "",
        )
    )


def _contract(offer: Offer) -> tuple[JsonObject, JsonObject]:
    """Return the schemas of an offer's arguments and result.

    Raises `InputError` for what could not be called: a bad URI, or a tool that is only a task.
    """
    match offer:
        case Tool():
            if offer.execution is not None and offer.execution.task_support == "required":
                raise InputError("it runs as a task only, and calls wait for their result here")
            output = cast("JsonObject | None", offer.output_schema)
            arguments = cast("JsonObject", offer.input_schema)
            return arguments, CONTENT_SCHEMA if output is None else output
        case Resource():
            return _texts(uri.variables(offer.uri)), _CONTENTS_SCHEMA
        case ResourceTemplate():
            return _texts(uri.variables(offer.uri_template)), _CONTENTS_SCHEMA
        case Prompt():
            given = offer.arguments or []
            needed = [one.name for one in given if one.required]
            return _texts([one.name for one in given], needed), _MESSAGES_SCHEMA


def _texts(names: Sequence[str], needed: Sequence[str] | None = None) -> JsonObject:
    """Return a contract for arguments that are all text."""
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": [*(names if needed is None else needed)],
        "additionalProperties": False,
    }


def _joined(proposals: Iterable[Proposal]) -> Proposal:
    return reduce(Proposal.join, proposals, Proposal(files={}))
