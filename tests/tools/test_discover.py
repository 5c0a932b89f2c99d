"""Discovery: real servers and functions become proposals that load as a project."""

from __future__ import annotations

import json

import pytest

from interlock.domain.errors import UnavailableError
from interlock.domain.ids import ToolName
from interlock.domain.release import Release
from interlock.domain.tool import (
    ConnectorKind,
    EffectClass,
    Group,
    McpCall,
    PythonCall,
    Server,
    ToolVersion,
)
from interlock.manifest.load import load
from interlock.tools.contract import Contract
from interlock.tools.discover import CONTENT_SCHEMA, from_functions, from_mcp
from interlock.tools.functions import python_function
from interlock.tools.proposal import Proposal
from tests.conformance.connector_outside import mcp_http_outside, mcp_stdio_outside
from tests.tools.library import LIBRARY

PROJECT = """
interlock: v1
kind: Project
name: test
title: Test
teams: [it]
---
interlock: v1
kind: System
name: outside
title: Outside
owner: it
"""


def _loaded(proposal: Proposal, server: str) -> Release:
    """Load a proposal with the entries that it needs around it."""
    entry = f"interlock: v1\nkind: Server\nsystem: outside\nenvironment: dev\n{server}"
    return load({**proposal.files, "project.yaml": PROJECT, "servers.yaml": entry})


async def test_mcp_tools_are_proposed_as_blind_writes() -> None:
    """The server's claim to be read-only is not believed."""
    async with mcp_http_outside(is_old=False) as outside:
        proposal = await from_mcp(outside.server, owner="it")

    release = _loaded(
        proposal, f"name: outside-mcp\nprotocol: mcp-http\nurl: {outside.server.url}\n"
    )
    assert 8 == len(release.tools)
    tools = release.tools.values()
    assert {(Group.WRITE, EffectClass.BLIND, "it")} == {
        (tool.group, tool.effect.effect_class, tool.owner) for tool in tools
    }
    echo = release.tools[ToolName("outside.echo.call")]
    assert isinstance(echo.request, McpCall)
    assert ("echo", True) == (echo.request.upstream, str(echo.request.pin).startswith("sha256:"))
    assert "ignore all rules" not in echo.description


async def test_result_without_structure_fits_the_proposed_contract() -> None:
    """What the connector hands on of a text result is what was proposed."""
    async with mcp_stdio_outside(is_old=False) as outside:
        reply = await outside.connector.send(outside.call("plain"))

    Contract.of(CONTENT_SCHEMA).check(reply.body, what="result")


LIBRARY_ENTRY = f"name: library\nprotocol: mcp-stdio\nargv: {json.dumps(list(LIBRARY.argv))}\n"


async def test_resources_and_prompts_are_taken_if_asked_for() -> None:
    """They are named and counted otherwise, since a server may have thousands."""
    proposal = await from_mcp(LIBRARY, owner="it")

    assert ["outside.ask.call", "outside.picture.call"] == sorted(
        _loaded(proposal, LIBRARY_ENTRY).tools
    )
    assert proposal.notes[-2:] == (
        "the server also offers 4 resources: take them with `--resources`",
        "the server also offers 1 prompt: take them with `--prompts`",
    )


async def test_resources_and_prompts_are_proposed_as_tools_that_read() -> None:
    """With the values that their URI or their declaration wants; what cannot be filled is told."""
    proposal = await from_mcp(LIBRARY, owner="it", kinds=("resource", "prompt"))

    tools = _loaded(proposal, LIBRARY_ENTRY).tools
    assert {
        "outside.cover.read": ("resource notes://index/picture", []),
        "outside.greet.get": ("prompt greet", ["name"]),
        "outside.index.read": ("resource notes://index", []),
        "outside.note.read": ("resource notes://{team}/{note}", ["team", "note"]),
    } == {name: (_call(tool).offer, tool.input_schema["required"]) for name, tool in tools.items()}
    assert {(Group.READ, EffectClass.READ)} == {
        (tool.group, tool.effect.effect_class) for tool in tools.values()
    }
    assert all(str(_call(tool).pin).startswith("sha256:") for tool in tools.values())
    assert any("`resource notes://search{?word}` was left out" in note for note in proposal.notes)


def _call(tool: ToolVersion) -> McpCall:
    assert isinstance(tool.request, McpCall)
    return tool.request


async def test_tool_that_only_runs_as_a_task_is_left_out() -> None:
    """Each call of it would be refused."""
    async with mcp_stdio_outside(is_old=True) as outside:
        proposal = await from_mcp(outside.server, owner="it")

    assert "tools/outside.echo.call.yaml" in proposal.files
    assert "tools/outside.task.call.yaml" not in proposal.files
    assert ("`task` was left out: it runs as a task only",) == tuple(
        note.partition(", and")[0] for note in proposal.notes
    )


async def test_server_that_is_away_is_unavailable() -> None:
    """Nothing can be proposed of what cannot be reached."""
    server = Server(
        name="s", system="outside", environment="dev", kind="mcp-stdio", argv=("/nowhere/at/all",)
    )

    with pytest.raises(UnavailableError):
        await from_mcp(server, owner="it")


def test_functions_are_proposed_with_their_own_contracts() -> None:
    """A registered function becomes a tool that loads."""

    def create_bill(amount: int) -> dict[str, int]:
        """Write a bill."""
        return {"paid": amount}

    server = Server(name="code", system="outside", environment="dev", kind="python")

    proposal = from_functions([python_function("create_bill", create_bill)], server, owner="it")

    release = _loaded(proposal, "name: code\nprotocol: python\n")
    (tool,) = release.tools.values()
    assert ("outside.bill.create", ConnectorKind.PYTHON) == (tool.name, tool.connector)
    assert PythonCall(function="create_bill") == tool.request
