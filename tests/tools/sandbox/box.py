"""A server of untrusted code for tests, and the reason why this machine may have none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from textwrap import dedent

import pytest

from interlock.domain.canonical import Json
from interlock.domain.effect import Reply
from interlock.domain.tool import ConnectorKind, PythonCall, Server
from interlock.testing.connectors.outside import outgoing, tool_of
from interlock.tools.connectors.sandbox import SandboxConnector
from interlock.tools.sandbox.process import missing


@cache
def _missing() -> str | None:
    return missing()


def need_sandbox() -> None:
    """Skip where this machine has no namespaces or no Landlock; it refuses untrusted code then."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)


def server_of(code: str, **more: str) -> Server:
    """Return a server with one module `m`, and others by name."""
    texts = {"m.py": dedent(code), **{f"{name}.py": text for name, text in more.items()}}
    return Server(
        name="box", system="outside", environment="dev", kind="python-sandbox", code=texts
    )


async def ran(
    code: str,
    *,
    timeout_s: float = 20.0,
    secret: str | None = None,
    arguments: Mapping[str, Json] | None = None,
) -> Reply:
    """Run the function `f` of some code once."""
    server = server_of(code)
    tool = tool_of(ConnectorKind.PYTHON, PythonCall(function="m.f"))
    call = outgoing(tool, server, dict(arguments or {}), timeout_s=timeout_s, secret=secret)
    return await SandboxConnector(server).send(call)
