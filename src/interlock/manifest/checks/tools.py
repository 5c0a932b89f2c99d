"""What a tool file must keep beyond its form: rules between its own keys, and names that exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from itertools import chain

from interlock.domain import uri
from interlock.domain.canonical import Json
from interlock.domain.errors import InputError, Problem
from interlock.domain.label import UNDECLARED
from interlock.domain.release import Release, pin_of
from interlock.domain.tool import (
    EffectClass,
    Group,
    Guard,
    HttpRequest,
    McpCall,
    PythonCall,
    Server,
    SqlQuery,
    ToolVersion,
)
from interlock.manifest.files import Document, Place
from interlock.manifest.names import Names
from interlock.manifest.places import Schemas, misplaced
from interlock.tools.contract import check_schema
from interlock.tools.requests.http import check_request
from interlock.tools.requests.sql import check_query

_NEEDED = {
    "http": "url",
    "mcp-http": "url",
    "mcp-stdio": "argv",
    "python-sandbox": "source",
    "postgres": "url",
}
_OURS = "INTERLOCK_"
_PROTOCOLS = {
    "http": {"http"},
    "mcp": {"mcp-http", "mcp-stdio"},
    "python": {"python", "python-sandbox"},
    "sql": {"postgres"},
}
_URL = re.compile(r"https?://[^/@?#\s]+(/[^?#\s]*)?")
_DATABASE_URL = re.compile(r"postgres://[^/@?#\s]+/[A-Za-z0-9_-]+")

Finding = tuple[Place, str, str | None]
"""Place in the document, message, fix."""


def check_server(server: Server, document: Document, names: Names) -> Iterator[Problem]:
    """Yield what is wrong with a server."""
    yield from names.missing(document, ("system",), "System", server.system)
    needed = {"url": server.url is not None, "argv": bool(server.argv)}
    # A folder that is named counts only with code in it.
    needed["source"] = bool(server.code) or ("source",) in document.lines
    if server.kind == "python-sandbox" and needed["source"] and not server.code:
        message = f"there are no `.py` files in `{document.content['source']}`"
        yield document.problem(("source",), message, "put the code there")
    for path in server.code:
        module = path.partition("/")[0].removesuffix(".py")
        if module in sys.stdlib_module_names:
            message = f"`{path}` has the name of the module `{module}` of Python itself"
            yield document.problem(("source",), message, "call the file otherwise")
    wanted = _NEEDED.get(server.kind)
    for key, is_given in needed.items():
        if key == wanted and not is_given:
            yield document.problem((), f"a server of protocol `{server.kind}` needs `{key}`")
        elif key != wanted and is_given:
            message = f"a server of protocol `{server.kind}` takes no `{key}`"
            yield document.problem((key,), message)
    yield from _program(server, document)
    form = _DATABASE_URL if server.kind == "postgres" else _URL
    if server.url is not None and not form.fullmatch(server.url):
        message = f"`{server.url}` is not an address without user, query and fragment"
        is_database = server.kind == "postgres"
        fix = "write it as postgres://HOST:PORT/DATABASE" if is_database else None
        yield document.problem(("url",), message, fix)
    if server.kind == "postgres" and server.auth != "basic":
        message = "a database wants a user and a password"
        yield document.problem(("auth",), message, "say `auth: basic`")


def _program(server: Server, document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the program that a server is, if it is one."""
    is_program = server.kind == "mcp-stdio"
    if is_program and server.environment != "dev" and server.program_pin is None:
        message = f"a program that is started in `{server.environment}` is pinned"
        fix = "write the digest that `sha256sum` prints as `program_pin: sha256:...`"
        yield document.problem((), message, fix)
    if server.program_pin is not None and not is_program:
        message = f"a server of protocol `{server.kind}` takes no `program_pin`"
        yield document.problem(("program_pin",), message)
    for name in server.environment_variables:
        if name.startswith(_OURS):
            message = f"`{name}` is for Interlock itself, and may be a credential"
            yield document.problem(("variables",), message, "name a variable of the server's own")


def check_tool(
    tool: ToolVersion,
    document: Document,
    *,
    names: Names,
    release: Release,
    today: str | None = None,
) -> Iterator[Problem]:
    """Yield what is wrong with a tool version; `release` is the candidate that holds it.

    `today` (as `2026-11-30`) is when it is to be applied, None for a look that is no apply.
    """
    yield from names.missing(document, ("system",), "System", tool.system)
    yield from names.missing(document, ("owner",), "team", tool.owner)
    for key, labels in (("source", tool.source.labels), ("sink", tool.sink.accepts)):
        for label in sorted(labels - {UNDECLARED}):
            yield from names.missing(document, (key,), "label", label)
    found = chain(
        _classes(tool), _effect(tool), _contract(tool), _templates(tool), _bindings(tool, release)
    )
    for place, message, fix in found:
        yield document.problem(place, message, fix)
    yield from _related(tool, document, names=names, release=release)
    for place, message, fix in _deprecation(tool, release, today):
        yield document.problem(place, message, fix)
    given = document.content.get("pin")
    if given is not None and given != pin_of(tool):
        message = "the pin does not fit this content"
        yield document.problem(("pin",), message, f"review the change, then pin {pin_of(tool)}")


def _classes(tool: ToolVersion) -> Iterator[Finding]:
    if tool.name.partition(".")[0] != tool.system:
        message = f"the name `{tool.name}` does not start with its system"
        yield ("name",), message, f"call it {tool.system}.<noun>.<verb>"
    is_read = tool.group is Group.READ
    if is_read != (tool.effect.effect_class is EffectClass.READ):
        message = "group `read` and effect class `read` go together, and only together"
        yield ("group",), message, "say what the tool really does"
    if tool.group is Group.DESTRUCTIVE and tool.risk == 1:
        yield ("risk",), "a destructive tool has at least risk 2", None
    if tool.is_irreversible and tool.risk == 1:
        yield ("risk",), "an irreversible tool has at least risk 2", None
    if tool.is_irreversible and tool.compensation is not None:
        message = "an irreversible tool cannot have a compensation"
        yield ("compensation",), message, "drop one of the two"
    if tool.is_egress and not tool.sink.is_external:
        yield ("sink",), "a tool with `egress: true` has an external sink", "set `external: true`"


def _effect(tool: ToolVersion) -> Iterator[Finding]:
    effect, request = tool.effect, tool.request
    if isinstance(request, HttpRequest) and "error" in effect.no_effect:
        message = "an `http` tool answers with statuses, and knows no `error`"
        yield ("effect", "no_effect"), message, "name the statuses that prove it"
    match effect.effect_class:
        case EffectClass.KEYED:
            if effect.key_ttl_s is None:
                message = "a `keyed` tool needs `key_ttl_s`"
                yield ("effect",), message, "say how long the outside remembers our key"
            if isinstance(request, HttpRequest) and request.key_header is None:
                yield ("request",), "a `keyed` tool needs `key_header`", None
            if isinstance(request, McpCall) and request.key_argument is None:
                yield ("upstream",), "a `keyed` tool needs `key_argument`", None
        case EffectClass.CONDITIONAL:
            if effect.guard is None:
                message = "a `conditional` tool needs `guard`"
                yield ("effect",), message, "say what rejects a second write, or call it blind"
        case EffectClass.PROBED:
            if effect.probe is None:
                message = "a `probed` tool needs `probe`"
                yield ("effect",), message, "say how the effect is found, or call it blind"
        case EffectClass.READ | EffectClass.BLIND:
            pass
    if effect.guard is not None:
        has_header = isinstance(request, HttpRequest) and request.version_header is not None
        yield from _guard(effect.guard, has_header=has_header)


def _guard(guard: Guard, *, has_header: bool) -> Iterator[Finding]:
    place: Place = ("effect", "guard")
    wanted = {"version": {"version"}, "one_time_link": {"obtain", "link"}, "client_id": set[str]()}
    given = {"version": guard.version, "obtain": guard.obtain, "link": guard.link}
    for key, value in given.items():
        if (key in wanted[guard.kind]) != (value is not None):
            verb = "takes no" if value is not None else "needs"
            yield place, f"a guard of kind `{guard.kind}` {verb} `{key}`", None
    if has_header and guard.kind != "version":
        yield place, "`version_header` is for guards of kind `version`", None


def _contract(tool: ToolVersion) -> Iterator[Finding]:
    for key, schema, must_be_closed in (
        ("input", tool.input_schema, tool.is_write),
        ("output", tool.output_schema, False),
    ):
        for message in check_schema(schema, must_be_closed=must_be_closed):
            yield ("contract", key), message, None
    if tool.input_schema.get("type") != "object":
        yield ("contract", "input"), "the arguments of a tool are an object", "add `type: object`"
    properties = tool.input_schema.get("properties")
    for name in tool.policy_view.hidden:
        if not isinstance(properties, dict) or name not in properties:
            yield ("policy_view", "hidden"), f"there is no argument `{name}`", None


def _templates(tool: ToolVersion) -> Iterator[Finding]:
    arguments, output = tool.input_schema, tool.output_schema
    local: Schemas = {"in": arguments, "effect": None}
    checked: list[tuple[Place, Json, Schemas]] = []
    request = tool.request
    if isinstance(request, HttpRequest):
        sent: Schemas = {**local, "guard": None}
        checked += [
            (("request", key), dict(template), sent)
            for key, template in (("path_args", request.path_args), ("query", request.query))
        ]
        checked.append((("request", "body"), request.body, sent))
        received: Schemas = {"out": None, "status": None, "etag": None}
        checked.append((("request", "result"), request.result, received))
        for message in check_request(request, tool.effect.guard):
            yield ("request",), message, None
    if isinstance(request, McpCall) and request.kind != "tool":
        yield from _read_from(request, tool)
    if isinstance(request, SqlQuery):
        checked.append((("query", "parameters"), dict(request.parameters), local))
        yield from _query(request, tool)
    guard, probe, undo = tool.effect.guard, tool.effect.probe, tool.compensation
    if guard is not None and guard.version is not None:
        checked.append((("effect", "guard", "version"), guard.version, {"in": arguments}))
    if probe is not None:
        checked.append((("effect", "probe", "args"), probe.args, local))
        checked.append((("effect", "probe", "equals"), probe.equals, local))
        found: Schemas = {"found": None, **local}
        checked.append((("effect", "probe", "result"), probe.result, found))
    both: Schemas = {"in": arguments, "out": output}
    if undo is not None:
        checked.append((("compensation", "args"), undo.args, both))
    for index, record in enumerate(tool.records):
        checked.append((("records", index, "id"), record.id, both))
    for index, part in enumerate(tool.business_key.parts if tool.business_key else ()):
        checked.append((("business_key", "parts", index), part.at, {"in": arguments}))
    for place, template, schemas in checked:
        for inner, message in misplaced(template, schemas):
            yield (*place, *inner), message, None


def _read_from(request: McpCall, tool: ToolVersion) -> Iterator[Finding]:
    """Look at a tool that is a resource or a prompt of its server: it reads, its words are text."""
    if tool.group is not Group.READ:
        message = f"a tool that is a {request.kind} reads"
        yield ("upstream",), message, "say `group: read`, with effect class `read`"
    if request.key_argument is not None:
        yield ("upstream", "key_argument"), f"a {request.kind} takes no key", None
    properties = tool.input_schema.get("properties", {})
    declared = properties if isinstance(properties, dict) else {}
    required = tool.input_schema.get("required", [])
    needed = set(required) if isinstance(required, list) else set()
    for name, schema in declared.items():
        if not isinstance(schema, dict) or schema.get("type") != "string":
            fix = "give it `type: string` in the contract"
            yield ("upstream",), f"the argument `{name}` of a {request.kind} is text", fix
    if request.kind != "resource":
        return
    try:
        names = set(uri.variables(request.upstream))
    except InputError as error:
        yield ("upstream", "resource"), error.message, None
        return
    for name in sorted(names - (declared.keys() & needed)):
        fix = "declare it in the contract, and require it"
        yield ("upstream", "resource"), f"there is no argument `{name}`", fix
    for name in sorted(declared.keys() - names):
        yield ("upstream", "resource"), f"the argument `{name}` is not in the URI", None


def _query(query: SqlQuery, tool: ToolVersion) -> Iterator[Finding]:
    if tool.group is not Group.READ:
        message = "a tool that is a statement reads"
        yield ("query",), message, "say `group: read`, with effect class `read`"
    for message in check_query(query):
        yield ("query", "statement"), message, None


def _bindings(tool: ToolVersion, release: Release) -> Iterator[Finding]:
    for environment, target in tool.environments.items():
        place: Place = ("environments", environment)
        server = release.servers.get(target.server)
        if server is None:
            continue
        if server.environment != environment:
            message = f"the server `{server.name}` belongs to `{server.environment}`"
            yield place, message, f"bind a server of `{environment}`"
        if server.system != tool.system:
            yield place, f"the server `{server.name}` is one of `{server.system}`", None
        if server.kind not in _PROTOCOLS[tool.connector]:
            message = f"`{tool.connector}` tools cannot use a `{server.kind}` server"
            yield place, message, None
        request = tool.request
        if server.code and isinstance(request, PythonCall):
            module = f"{request.function.partition('.')[0]}.py"
            if request.function.count(".") != 1 or module not in server.code:
                message = f"`{server.name}` has no function `{request.function}`"
                fix = "write it as MODULE.FUNCTION, the module a file in the server's folder"
                yield ("function",), message, fix
        if environment == "prod" and isinstance(request, McpCall) and request.pin is None:
            message = (
                "in `prod` a tool of an MCP server is pinned to the definition that was reviewed"
            )
            yield ("upstream",), message, "run `interlock tool pin`, and look at what it shows"
        if (server.auth != "none") != (target.credentials is not None):
            verb = "wants" if server.auth != "none" else "takes no"
            yield place, f"the server `{server.name}` {verb} credentials", None
        for other in sorted({one.split("/")[3] for one in target.references} - {environment}):
            yield place, f"`{environment}` cannot use the credentials of `{other}`", None


def _deprecation(tool: ToolVersion, release: Release, today: str | None) -> Iterator[Finding]:
    declared = tool.deprecation
    if declared is None:
        return
    if declared.until is not None and declared.until < declared.since:
        yield ("deprecated", "until"), "`until` is before `since`", None
    if declared.tool is not None and declared.version is not None:
        place: Place = ("deprecated", "replace_with")
        found = release.tool_version(declared.tool, declared.version)
        if found is None:
            yield place, f"there is no tool `{declared.successor}`", None
        elif found.deprecation is not None:
            yield place, f"`{declared.successor}` is deprecated too", "name one that stays"
    live = [place for place, one in release.every_live(tool.name).items() if one == tool]
    callers = release.callers(tool.name)
    is_over = None not in {today, declared.until} and str(declared.until) < str(today)
    if is_over and live and callers:
        by = ", ".join(f"`{flow.name}` of `{flow.owner}`" for flow in callers)
        message = f"it is live in {', '.join(live)} after its last day, and called by {by}"
        instead = declared.successor or "another version"
        yield ("deprecated", "until"), message, f"release {instead} there, or move `until`"


def _related(
    tool: ToolVersion, document: Document, *, names: Names, release: Release
) -> Iterator[Problem]:
    """Check the tools that a tool leans on: its probe and its compensation."""
    for environment, target in tool.environments.items():
        place: Place = ("environments", environment, "server")
        yield from names.missing(document, place, "Server", target.server)
        if isinstance(target.credentials, Mapping):
            place = ("environments", environment, "credentials")
            for workflow in sorted(target.credentials):
                yield from names.missing(document, place, "Workflow", workflow)
    related = (
        (("effect", "probe"), tool.effect.probe),
        (("compensation",), tool.compensation),
    )
    for place, other in related:
        if other is None:
            continue
        found = release.tool_version(other.tool, other.version)
        if found is None:
            if other.tool in release.tools or other.tool not in names.known["Tool"]:
                near = release.tools.get(other.tool)
                fix = names.near("Tool", other.tool) if near is None else f"take {near.version}"
                message = f"there is no tool `{other.tool}@{other.version}`"
                yield document.problem((*place, "tool"), message, fix)
            continue
        if other is tool.effect.probe and found.group is not Group.READ:
            message = f"`{found.name}` writes, and a probe must only read"
            yield document.problem((*place, "tool"), message)
        for inner, text in misplaced_arguments(other.args, found):
            yield document.problem((*place, "args", *inner), text)
        for environment in tool.environments:
            if environment not in found.environments:
                message = f"`{found.name}@{found.version}` is not bound in `{environment}`"
                yield document.problem((*place, "tool"), message)


def misplaced_arguments(args: Json, tool: ToolVersion) -> Iterator[tuple[Place, str]]:
    """Yield where a template of arguments and the input contract of a tool disagree."""
    properties = tool.input_schema.get("properties")
    if not isinstance(args, dict) or not isinstance(properties, dict):
        return
    if tool.input_schema.get("additionalProperties") is False:
        for given in args:
            if given not in properties:
                yield (given,), f"`{tool.name}` has no argument `{given}`"
    required = tool.input_schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in args:
            yield (), f"`{tool.name}` needs the argument `{name}`"
