"""Resources and prompts at the gateway: found in MCP's own lists, read on the one road."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    BlobResourceContents,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    ImageContent,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from interlock.domain.ids import AgentName, WorkflowName
from interlock.domain.principal import Seat
from interlock.domain.tool import Server
from interlock.tools.discover import from_mcp
from interlock.tools.upstream import KINDS
from proofs.gateway_project import SERVER, frame
from tests.serve.gateway.door import Door
from tests.tools import library_server

ARGV = [sys.executable, library_server.__file__]
SEAT = Seat(workflow=WorkflowName("cost"), agent=AgentName("caller"))
ENTRY = f"""
interlock: v1
kind: Server
name: {SERVER}
system: upstream
environment: dev
protocol: mcp-stdio
argv: {json.dumps(ARGV)}
"""
REVIEWED = """
source: {labels: [], trusted: true}
sink: {accepts: [], external: false}
"""
GRANTED = ("cover.read", "greet.get", "index.read", "note.read", "picture.call")
BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture(scope="module")
def project() -> dict[str, str]:
    """The project of a server whose offers were imported and reviewed, all but one granted."""
    server = Server(
        name=SERVER, system="upstream", environment="dev", kind="mcp-stdio", argv=tuple(ARGV)
    )
    proposal = asyncio.run(from_mcp(server, owner="platform", kinds=KINDS))
    files = dict(proposal.files)
    for path, text in files.items():
        if path.startswith("tools/"):
            reads = text.replace("group: write", "group: read").replace("blind", "read")
            files[path] = reads + REVIEWED
    tones = {"type": "string", "enum": ["warm", "cold", "cool"]}
    greet = json.loads(files["schemas/upstream.greet.get.in.json"])
    greet["properties"]["tone"] = tones
    files["schemas/upstream.greet.get.in.json"] = json.dumps(greet)
    around = frame("http://127.0.0.1:9/mcp", [f"upstream.{name}" for name in GRANTED])
    return {**around, **files, f"servers/{SERVER}.yaml": ENTRY}


@pytest.fixture
def door(tmp_path: Path, project: dict[str, str], default_database_url: str) -> Iterator[Door]:
    """A gateway in front of it."""
    with Door(tmp_path, project, url=default_database_url, seat=SEAT) as opened:
        yield opened


@BOTH_ERAS
async def test_a_stock_client_finds_and_reads_resources(door: Door, mode: str) -> None:
    """Each under its own URI; each reading is a row of the ledger."""
    async with door.client(door.token(), mode=mode) as client:
        listed = await client.list_resources()
        patterns = await client.list_resource_templates()
        (text,) = (await client.read_resource("notes://index")).contents
        (blob,) = (await client.read_resource("notes://index/picture")).contents
        (note,) = (await client.read_resource("notes://a%2Fb/vpn")).contents

    assert ["notes://index", "notes://index/picture"] == sorted(one.uri for one in listed.resources)
    assert ["notes://{team}/{note}"] == [one.uri_template for one in patterns.resource_templates]
    assert "ignore all rules" not in str(listed)
    assert isinstance(text, TextResourceContents)
    assert isinstance(blob, BlobResourceContents)
    assert isinstance(note, TextResourceContents)
    assert ("vpn", "iVBORw==", "a/b: It drops at noon.") == (text.text, blob.blob, note.text)
    (session,) = door.sessions()
    calls = door.effects(session.run_id)
    assert {"upstream.index.read", "upstream.cover.read", "upstream.note.read"} == {
        effect.tool for effect in calls
    }
    assert {"succeeded"} == {effect.state for effect in calls}


@BOTH_ERAS
async def test_a_stock_client_finds_and_gets_prompts(door: Door, mode: str) -> None:
    """By our name, with the arguments and the values that the contract has."""
    name = "upstream__greet__get"
    async with door.client(door.token(), mode=mode) as client:
        (listed,) = (await client.list_prompts()).prompts
        got = await client.get_prompt(name, {"name": "Ann", "tone": "cold"})
        completed = await client.complete(
            PromptReference(type="ref/prompt", name=name), {"name": "tone", "value": "co"}
        )
        none = await client.complete(
            ResourceTemplateReference(type="ref/resource", uri="notes://{team}/{note}"),
            {"name": "team", "value": ""},
        )

    arguments = [(one.name, one.required) for one in listed.arguments or []]
    assert (name, [("name", True), ("tone", False)]) == (listed.name, arguments)
    (message,) = got.messages
    assert isinstance(message.content, TextContent)
    assert "Greet Ann in a cold way." == message.content.text
    assert ["cold", "cool"] == completed.completion.values
    assert [] == none.completion.values


@BOTH_ERAS
async def test_tools_are_listed_apart(door: Door, mode: str) -> None:
    """What a client finds as a resource or a prompt it does not find as a tool again."""
    async with door.client(door.token(), mode=mode) as client:
        tools = (await client.list_tools()).tools

    assert ["interlock__result", "upstream__picture__call"] == sorted(tool.name for tool in tools)


@BOTH_ERAS
async def test_content_blocks_arrive_as_blocks(door: Door, mode: str) -> None:
    """A picture is a picture for the client's model, not a text of base64."""
    async with door.client(door.token(), mode=mode) as client:
        made = await client.call_tool("upstream__picture__call", {})

    text, image = made.content
    assert isinstance(text, TextContent)
    assert isinstance(image, ImageContent)
    assert ("a pixel", library_server.PIXEL) == (text.text, image.data)
    assert made.structured_content is None


@pytest.mark.parametrize("wanted", ["notes://nowhere", "file:///etc/passwd", "notes://a/b/c"])
async def test_a_uri_that_nobody_granted_is_unknown(door: Door, wanted: str) -> None:
    """Nothing that is not registered is asked for upstream; the answer names what was asked."""
    async with door.client(door.token()) as client:
        with pytest.raises(MCPError) as told:
            await client.read_resource(wanted)

    assert (-32602, {"uri": wanted}) == (told.value.error.code, told.value.error.data)
    (session,) = door.sessions()
    assert [] == door.effects(session.run_id)


async def test_what_the_server_does_not_find_is_told_with_its_effect(door: Door) -> None:
    """A note that does not exist was asked for, so that the ledger has it."""
    async with door.client(door.token()) as client:
        with pytest.raises(MCPError) as told:
            await client.read_resource("notes://it/printer")

    (session,) = door.sessions()
    (effect,) = door.effects(session.run_id)
    assert effect.effect_id == told.value.error.data["interlock/effect-id"]
    assert "failed" in told.value.error.message


async def test_a_prompt_that_nobody_granted_is_unknown(door: Door) -> None:
    """Whether there is one or not; so is a tool that is no prompt."""
    async with door.client(door.token()) as client:
        for name in ("upstream__nothing__get", "upstream__picture__call"):
            with pytest.raises(MCPError, match="no such prompt"):
                await client.get_prompt(name)


async def test_a_reading_that_needs_people_leads_to_them(
    tmp_path: Path, project: dict[str, str], default_database_url: str
) -> None:
    """A client that can lead a person somewhere reads on once they have answered; others are told.

    The approval is for one reading: a resource, and a prompt.
    """
    teams = project["project.yaml"].replace("security]", "security, data-owners]")
    rules = ", ".join(
        f"{{tool: upstream.{name}, by: data-owners, why: tests}}"
        for name in ("index.read", "greet.get")
    )
    workflow = project["workflows/cost.yaml"].replace("approvals: []", f"approvals: [{rules}]")
    files = {**project, "project.yaml": teams, "workflows/cost.yaml": workflow}
    url = "https://interlock.example"
    with Door(tmp_path, files, url=default_database_url, seat=SEAT, public_url=url) as door:
        token = door.token()

        async def approve(
            context: ClientRequestContext, params: ElicitRequestParams
        ) -> ElicitResult:
            assert context.request_id is not None
            assert isinstance(params, ElicitRequestURLParams)
            assert params.url.startswith(url)
            (session,) = door.sessions()
            door.approve(session.run_id)
            return ElicitResult(action="accept")

        async with door.client(token) as client:
            with pytest.raises(MCPError, match="people are asked") as told:
                await client.read_resource("notes://index")
        async with door.client(token, led=approve) as client:
            (text,) = (await client.read_resource("notes://index")).contents
            got = await client.get_prompt("upstream__greet__get", {"name": "Ann"})

    assert "interlock/handle" in told.value.error.data
    assert isinstance(text, TextResourceContents)
    assert "vpn" == text.text
    assert 1 == len(got.messages)


async def test_arguments_outside_their_contract_are_refused(door: Door) -> None:
    """A prompt's arguments are checked like a tool's, before they are sent."""
    async with door.client(door.token()) as client:
        with pytest.raises(MCPError, match="contract") as told:
            await client.get_prompt("upstream__greet__get", {"name": "Ann", "tone": "rude"})

    assert "interlock/code" in told.value.error.data
