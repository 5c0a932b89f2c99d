"""The pool: one connector for each entry, of the right kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.errors import InputError
from interlock.domain.tool import Server
from interlock.tools.connectors.http import HttpConnector
from interlock.tools.connectors.mcp.connector import McpConnector
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.connectors.python import PythonConnector

HTTP = Server(name="a", system="s", environment="dev", kind="http", url="http://127.0.0.1:1/api")


async def test_kind_of_the_entry_chooses_the_connector() -> None:
    """Each kind of server has its connector, and two entries have two."""
    pool = ConnectorPool()
    entries = {
        HttpConnector: HTTP,
        McpConnector: replace(HTTP, name="b", kind="mcp-http"),
        PythonConnector: replace(HTTP, name="c", kind="python", url=None),
    }

    for kind, entry in entries.items():
        assert isinstance(pool.get(entry), kind)
    assert pool.get(HTTP) is not pool.get(replace(HTTP, name="d"))

    await pool.aclose()


@pytest.mark.parametrize(
    "entry",
    [
        replace(HTTP, url="http://169.254.169.254"),
        replace(HTTP, kind="mcp-http", url="http://example.org/mcp"),
        replace(HTTP, url=None),
        replace(HTTP, kind="mcp-stdio", url=None),
        replace(HTTP, environment="prod"),
    ],
)
async def test_entry_that_may_not_be_reached_has_no_connector(entry: Server) -> None:
    """A bad entry is refused before anything is opened."""
    pool = ConnectorPool()

    with pytest.raises(InputError):
        pool.get(entry)

    await pool.aclose()
