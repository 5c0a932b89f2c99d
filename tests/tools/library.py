"""The server with resources and prompts, as an entry of a project."""

from __future__ import annotations

import sys

from interlock.domain.tool import Server
from tests.tools import library_server

LIBRARY = Server(
    name="library",
    system="outside",
    environment="dev",
    kind="mcp-stdio",
    argv=(sys.executable, library_server.__file__),
)
