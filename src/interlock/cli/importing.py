"""Importing tools: manifests proposed from an MCP server, an OpenAPI document or functions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from interlock.cli.output import note, read_secret, say
from interlock.domain.errors import InputError, did_you_mean
from interlock.domain.ids import ToolName
from interlock.domain.tool import McpCall, McpKind, Server
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.tools import discover, openapi
from interlock.tools.functions import installed_functions
from interlock.tools.proposal import Proposal, repinned
from interlock.tools.sandbox.process import described
from interlock.tools.secrets.reference import checked, parse
from interlock.tools.upstream import definitions, pin_of


def from_mcp(
    folder: Path, *, server: str, owner: str, kinds: Sequence[McpKind], reference: str | None
) -> None:
    """Propose what an MCP server offers that the project in `folder` declares."""
    entry = _server(folder, server, kinds={"mcp-http", "mcp-stdio"})
    secret = None
    if reference is not None:
        secret = _secret(reference)
    asked = discover.from_mcp(entry, owner=owner, kinds=kinds, secret=secret, variables=os.environ)
    _write(folder, asyncio.run(asked))


def from_openapi(document: Path, folder: Path, *, server: str, owner: str) -> None:
    """Propose the operations of an OpenAPI document as tools of a server of the project."""
    entry = _server(folder, server, kinds={"http"})
    try:
        text = document.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"`{document}` is not UTF-8 text"
        raise InputError(msg) from None
    _write(folder, openapi.from_openapi(text, entry, owner=owner))


def from_python(folder: Path, *, server: str, owner: str) -> None:
    """Propose the functions that installed packages offer, or those of a sandbox's folder."""
    entry = _server(folder, server, kinds={"python", "python-sandbox"})
    if entry.kind == "python-sandbox":
        offered = asyncio.run(described(entry))
        _write(folder, discover.from_functions(offered, entry, owner=owner))
        return
    functions = installed_functions()
    if not functions:
        msg = "no installed package offers functions; declare entry points `interlock.functions`"
        raise InputError(msg)
    _write(folder, discover.from_functions(functions.values(), entry, owner=owner))


def pin(folder: Path, *, name: str, reference: str | None) -> None:
    """Pin an MCP tool of the project to what its server says now, as a new version for review."""
    files = read_folder(folder)
    release = load(files)
    tool = release.tools.get(ToolName(name))
    if tool is None or not isinstance(tool.request, McpCall):
        hint = did_you_mean(name, release.tools) or "only tools of MCP servers are pinned so"
        raise InputError(f"the project has no MCP tool `{name}`; {hint}")
    servers = [release.servers[bound.server] for bound in tool.environments.values()]
    pins = {server.name: _pin_at(server, tool.request, reference) for server in servers}
    if len({*pins.values()}) != 1:
        named = ", ".join(f"`{server}`" for server in pins)
        raise InputError(f"{named} offer different definitions; register two tools")
    [new] = {*pins.values()}
    if new == tool.request.pin:
        say(f"`{name}` is pinned to what its server says now")
        return
    path, text = repinned(files, tool, new)
    (folder / path).write_text(text, encoding="utf-8")
    say(f"wrote version {tool.version + 1} of `{name}` to {folder / path}")
    say("check that its contract and its words still fit, and what names its version; then plan")


def _pin_at(server: Server, request: McpCall, reference: str | None) -> str:
    secret = None
    if reference is not None:
        secret = _secret(reference)
    asked = discover.offered(server, (request.kind,), secret=secret, variables=os.environ)
    definition = definitions(asyncio.run(asked)).get(request.offer)
    found = None if definition is None else pin_of(definition)
    if found is None:
        raise InputError(
            f"`{server.name}` offers no {request.kind} `{request.upstream}` that can be pinned"
        )
    return found


def _secret(reference: str) -> str:
    """Ask for a credential: what is stored is opened by the server alone."""
    parse(reference)
    return checked(read_secret(f"the secret of {reference}"), reference)


def _server(folder: Path, name: str, *, kinds: set[str]) -> Server:
    """Return a server entry of the project: nothing else is ever connected to or started."""
    servers = load(read_folder(folder)).servers
    server = servers.get(name)
    if server is None:
        hint = did_you_mean(name, servers) or "declare it in a file below `servers/`"
        raise InputError(f"the project has no server `{name}`; {hint}")
    if server.kind not in kinds:
        wanted = " or ".join(f"`{kind}`" for kind in sorted(kinds))
        raise InputError(f"the server `{name}` speaks `{server.kind}`, and {wanted} is needed")
    return server


def _write(folder: Path, proposal: Proposal) -> None:
    for line in proposal.notes:
        note(f"note: {line}")
    if not proposal.files:
        raise InputError("there is nothing to import")
    for path, text in sorted(proposal.files.items()):
        file = folder / path
        if file.exists():
            note(f"kept {file}, which exists already")
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        say(f"wrote {file}")
    say("review the files: what each tool does, and how a repeat is kept harmless; then plan")
