"""Importing tools: manifests proposed from an MCP server, an OpenAPI document or functions."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from interlock.cli.output import note, say
from interlock.config import Config
from interlock.domain.errors import InputError, did_you_mean
from interlock.domain.tool import Server
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.tools import discover, openapi
from interlock.tools.credentials import Credentials
from interlock.tools.functions import installed_functions
from interlock.tools.proposal import Proposal


def from_mcp(config: Config, folder: Path, *, server: str, owner: str) -> None:
    """Propose the tools of an MCP server that the project in `folder` declares."""
    entry = _server(folder, server, protocol="mcp")
    secret = None
    if entry.credentials is not None:
        secret = Credentials(config.data_dir / "secrets").resolve(entry.credentials)
    asked = discover.from_mcp(entry, owner=owner, secret=secret, variables=os.environ)
    _write(folder, asyncio.run(asked))


def from_openapi(document: Path, folder: Path, *, server: str, owner: str) -> None:
    """Propose the operations of an OpenAPI document as tools of a server of the project."""
    entry = _server(folder, server, protocol="http")
    try:
        text = document.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"`{document}` is not UTF-8 text"
        raise InputError(msg) from None
    _write(folder, openapi.from_openapi(text, entry, owner=owner))


def from_python(folder: Path, *, server: str, owner: str) -> None:
    """Propose the functions that installed packages offer."""
    entry = _server(folder, server, protocol="python")
    functions = installed_functions()
    if not functions:
        msg = "no installed package offers functions; declare entry points `interlock.functions`"
        raise InputError(msg)
    _write(folder, discover.from_functions(functions.values(), entry, owner=owner))
