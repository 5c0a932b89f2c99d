"""The howto about Python tools, run as it stands, up to a call of the function."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from interlock.domain.effect import Reply, Transport
from interlock.domain.ids import ToolName
from interlock.domain.tool import Server
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.testing.connectors.outside import outgoing
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.connectors.port import OutgoingCall
from tests.cli.terminal import done
from tests.tools.sandbox.box import need_sandbox

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "python-tools.md").read_text("utf-8")


def test_the_page_leads_from_a_file_to_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and command as it stands there; then the function is called as it was loaded."""
    need_sandbox()
    monkeypatch.chdir(tmp_path)
    done("init", ".")
    said = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if kind == "sh":
            said += [done(*shlex.split(line)[1:]) for line in text.splitlines()]
        else:
            _write(tmp_path / text.partition("\n")[0].lstrip("# "), text)
    imported, planned = said
    release = load(read_folder(tmp_path))
    tool, server = release.tools[ToolName("names.titles_slug.call")], release.servers["names-dev"]
    call = outgoing(tool, server, {"title": "How it is done!"})

    assert "wrote tools/names.titles_slug.call.yaml" in imported
    assert "+ server names-dev" in planned
    expected = Reply(transport=Transport.REPLY, status=200, body="how-it-is-done")
    assert expected == asyncio.run(_sent(server, call))


async def _sent(server: Server, call: OutgoingCall) -> Reply:
    return await ConnectorPool().get(server).send(call)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
