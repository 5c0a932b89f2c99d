"""The outside worlds of the connector suite: the same operations behind each kind of server."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from interlock.domain.canonical import Json
from interlock.domain.tool import (
    ConnectorKind,
    HttpRequest,
    McpCall,
    PythonCall,
    Server,
    SqlQuery,
)
from interlock.testing.connectors import calls, outside
from interlock.tools.connectors.http import HttpConnector
from interlock.tools.connectors.mcp.connector import McpConnector
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.connectors.port import Connector, OutgoingCall
from interlock.tools.connectors.python import PythonConnector
from interlock.tools.connectors.sandbox import SandboxConnector
from interlock.tools.connectors.sql import SqlConnector
from interlock.tools.functions import EffectContext, functions_by_name, python_function
from tests.conformance.mcp_outside import outside_server

_OLD_STREAMS = "in 2025-11-25 each answer is a stream, which the SDK ends with its connection"
MCP_PROGRAM = str(Path(__file__).with_name("mcp_outside.py"))


@dataclass(frozen=True, kw_only=True)
class Outside(outside.Outside):
    """One world, with a pool of its connectors."""

    pool: ConnectorPool = field(default_factory=ConnectorPool)
    forget: Callable[[], None] = lambda: None

    @property
    def connector(self) -> Connector:
        """Return the connector of this world's server."""
        return self.pool.get(self.server)

    async def count(self, operation: str) -> Json:
        """Ask the world how often an operation was received."""
        return await calls.count(self, self.connector, operation)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def http_outside() -> AsyncIterator[Outside]:
    """A plain HTTP server in a thread."""
    counts: Counter[str] = Counter()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", "0"))
            arguments = json.loads(self.rfile.read(size) or b"{}")
            operation = self.path.removeprefix("/base/")
            counts[operation] += 1
            answers: dict[str, object] = {
                "echo": {**arguments, "key": self.headers.get("Idempotency-Key")},
                "large": {"text": "x" * 10_000},
                "unsafe": {"n": 2**60},
                "credential": {"credential": self.headers.get("Authorization")},
                "count": {"count": counts[arguments.get("of", "")]},
            }
            if operation == "hang":
                released.wait(30)
            body = json.dumps(answers.get(operation, {"error": "the printer is on fire"})).encode()
            self.send_response(200 if operation in answers else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_args: object) -> None:
            """Say nothing of clients that left: calls that hang are given up."""

    httpd = Listening(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    server = Server(
        name="outside-http",
        system="outside",
        environment="dev",
        kind="http",
        url=f"http://127.0.0.1:{httpd.server_port}/base",
        auth="none",
    )
    world = Outside(
        server=server,
        declare=lambda operation: HttpRequest(
            method="POST", path=f"/{operation}", body="in:", key_header="Idempotency-Key"
        ),
        kind=ConnectorKind.HTTP,
        build=HttpConnector,
        away=replace(server, name="away", url=f"http://127.0.0.1:{free_port()}/base"),
    )
    try:
        yield world
    finally:
        released.set()
        await world.pool.aclose()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@asynccontextmanager
async def mcp_http_outside(*, is_old: bool) -> AsyncIterator[Outside]:
    """The SDK's server over Streamable HTTP, in this event loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    mcp = outside_server(is_old=is_old)
    app = mcp.streamable_http_app(streamable_http_path="/mcp")
    serving = uvicorn.Server(
        uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(serving.serve(sockets=[listening]))
    server = Server(
        name="outside-mcp",
        system="outside",
        environment="dev",
        kind="mcp-http",
        url=f"http://127.0.0.1:{listening.getsockname()[1]}/mcp",
    )
    world = Outside(
        server=server,
        declare=lambda operation: McpCall(upstream=operation),
        kind=ConnectorKind.MCP,
        build=McpConnector,
        away=replace(server, name="away", url=f"http://127.0.0.1:{free_port()}/mcp"),
        cannot={"one-client-for-all-calls": _OLD_STREAMS} if is_old else {},
        forget=mcp.session_manager._server_instances.clear,
    )
    try:
        yield world
    finally:
        await world.pool.aclose()
        serving.should_exit = True
        await task


@asynccontextmanager
async def mcp_stdio_outside(*, is_old: bool) -> AsyncIterator[Outside]:
    """The SDK's server as a process, over stdio."""
    argv = (sys.executable, MCP_PROGRAM, *(["--old"] if is_old else []))
    server = Server(
        name="outside-stdio",
        system="outside",
        environment="dev",
        kind="mcp-stdio",
        argv=argv,
        environment_variables=("LISTED",),
    )
    world = Outside(
        server=server,
        declare=lambda operation: McpCall(upstream=operation),
        kind=ConnectorKind.MCP,
        build=McpConnector,
        pool=ConnectorPool(variables={"LISTED": "1", "UNLISTED": "1"}),
        away=replace(server, name="away", argv=("/nowhere/at/all",)),
    )
    try:
        yield world
    finally:
        await world.pool.aclose()


@asynccontextmanager
async def python_outside() -> AsyncIterator[Outside]:
    """Functions of this process."""
    counts: Counter[str] = Counter()

    def echo(context: EffectContext, text: str) -> Json:
        counts["echo"] += 1
        return {"text": text, "key": context.key}

    def fail() -> Json:
        counts["fail"] += 1
        raise RuntimeError("the printer is on fire")

    async def hang() -> Json:
        counts["hang"] += 1
        await asyncio.Event().wait()
        return None

    def credential(context: EffectContext) -> Json:
        return {"credential": f"Bearer {context.secret}"}

    code: Mapping[str, Callable[..., object]] = {
        "echo": echo,
        "fail": fail,
        "hang": hang,
        "credential": credential,
        "large": lambda: {"text": "x" * 10_000},
        "unsafe": lambda: {"n": 2**60},
        "count": _counter(counts),
    }
    functions = [python_function(name, function) for name, function in code.items()]
    server = Server(name="outside-python", system="outside", environment="dev", kind="python")
    world = Outside(
        server=server,
        declare=lambda operation: PythonCall(function=operation),
        kind=ConnectorKind.PYTHON,
        build=lambda _server: PythonConnector(functions_by_name(functions)),
        pool=ConnectorPool(functions_by_name(functions)),
        away=server,
        cannot={
            "request-over-the-limit": "a function is handed its arguments; nothing is serialised",
            "nothing-answers": "a function is part of this process; there is no server",
        },
    )
    try:
        yield world
    finally:
        await world.pool.aclose()


_UNTRUSTED = """
import time

def echo(context, text):
    return {"text": text, "key": context.key}

def fail():
    raise RuntimeError("the printer is on fire")

def hang():
    time.sleep(3600)

def credential(context):
    return {"credential": f"Bearer {context.secret}"}

def large():
    return {"text": "x" * 10_000}

def unsafe():
    return {"n": 2**60}
"""


@asynccontextmanager
async def sandbox_outside() -> AsyncIterator[Outside]:
    """Functions of code that nobody trusts, each call in a process of its own."""
    server = Server(
        name="outside-sandbox",
        system="outside",
        environment="dev",
        kind="python-sandbox",
        code={"m.py": _UNTRUSTED},
    )
    forgets = "each call is a process of its own, which remembers none before it"
    world = Outside(
        server=server,
        declare=lambda operation: PythonCall(function=f"m.{operation}"),
        kind=ConnectorKind.PYTHON,
        build=SandboxConnector,
        pool=ConnectorPool(),
        away=server,
        cannot={
            "failure-is-an-answer": forgets,
            "silence-is-unknown": forgets,
            "cancellation-ends-one-call": forgets,
            "request-over-the-limit": forgets,
            "nothing-answers": "the code comes with the release; there is no server",
        },
    )
    try:
        yield world
    finally:
        await world.pool.aclose()


_STATEMENTS = {
    "echo": "SELECT %(text)s::text AS text, %(key)s::text AS key",
    "fail": "SELECT 1 / 0",
    "hang": "SELECT pg_sleep(3600)",
    "large": "SELECT repeat('x', 10000) AS text",
    "unsafe": f"SELECT {2**60} AS n",
}


@dataclass(frozen=True, kw_only=True)
class SqlOutside(Outside):
    """A world whose calls have the credential that its database wants."""

    secret: str

    def call(
        self,
        operation: str,
        *,
        server: Server | None = None,
        timeout_s: float = 20.0,
        secret: str | None = None,
        **given: Json,
    ) -> OutgoingCall:
        """Return one attempt of an operation."""
        known = secret or self.secret
        return super().call(operation, server=server, timeout_s=timeout_s, secret=known, **given)


@asynccontextmanager
async def sql_outside(url: str) -> AsyncIterator[Outside]:
    """A Postgres database, whose URL holds user and password."""
    parts = urlsplit(url)
    server = Server(
        name="outside-sql",
        system="outside",
        environment="dev",
        kind="postgres",
        url=f"postgres://127.0.0.1:{parts.port}{parts.path}",
        auth="basic",
    )
    forgets = "a statement that reads leaves nothing behind that could be counted"
    world = SqlOutside(
        server=server,
        secret=f"{parts.username}:{parts.password}",
        declare=_statement,
        kind=ConnectorKind.SQL,
        build=SqlConnector,
        away=replace(server, name="away", url=f"postgres://127.0.0.1:{free_port()}/none"),
        cannot={
            "failure-is-an-answer": forgets,
            "silence-is-unknown": forgets,
            "cancellation-ends-one-call": forgets,
            "request-over-the-limit": forgets,
        },
    )
    try:
        yield world
    finally:
        await world.pool.aclose()


def _statement(operation: str) -> SqlQuery:
    parameters: dict[str, Json] = {"text": "in:/text", "key": "effect:key"}
    return SqlQuery(
        statement=_STATEMENTS[operation],
        parameters=parameters if operation == "echo" else {},
        returns="row",
    )


def _counter(counts: Counter[str]) -> Callable[..., Json]:
    def count(of: str) -> Json:
        return {"count": counts[of]}

    return count
