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

import uvicorn

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import EffectId, ToolName
from interlock.domain.tool import (
    Binding,
    ConnectorKind,
    EffectClass,
    EffectSpec,
    HttpRequest,
    Limits,
    McpCall,
    PythonCall,
    Server,
    ToolVersion,
)
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.connectors.port import Connector, OutgoingCall
from interlock.tools.functions import EffectContext, functions_by_name, python_function
from tests.conformance.mcp_outside import outside_server

ANY: JsonObject = {"type": "object"}
MCP_PROGRAM = str(Path(__file__).with_name("mcp_outside.py"))


@dataclass(frozen=True, kw_only=True)
class Outside:
    """One world: its server entry, how it declares an operation, and an entry that is away."""

    server: Server
    declare: Callable[[str], HttpRequest | McpCall | PythonCall]
    kind: ConnectorKind
    pool: ConnectorPool = field(default_factory=ConnectorPool)
    away: Server
    away_operation: str = "echo"
    forget: Callable[[], None] = lambda: None

    @property
    def connector(self) -> Connector:
        """Return the connector of this world's server."""
        return self.pool.get(self.server)

    def call(
        self, operation: str, *, timeout_s: float = 20.0, secret: str | None = None, **given: Json
    ) -> OutgoingCall:
        """Return one attempt of an operation."""
        tool = tool_of(self.kind, self.declare(operation))
        return outgoing(tool, self.server, dict(given), timeout_s=timeout_s, secret=secret)

    async def count(self, operation: str) -> Json:
        """Ask the world how often an operation was received."""
        reply = await self.connector.send(self.call("count", of=operation))
        assert isinstance(reply.body, dict)
        return reply.body["count"]


def tool_of(
    kind: ConnectorKind, request: HttpRequest | McpCall | PythonCall, **changes: object
) -> ToolVersion:
    """Return a tool version that is blind and open; `changes` replace its members."""
    tool = ToolVersion(
        name=ToolName("outside.thing.do"),
        version=1,
        owner="team",
        title="Do a thing",
        description="Do a thing",
        system="outside",
        connector=kind,
        request=request,
        input_schema=ANY,
        output_schema=ANY,
        limits=Limits(timeout_s=20.0, request_bytes=1000, response_bytes=5000),
        effect=EffectSpec(effect_class=EffectClass.BLIND),
    )
    return replace(tool, **changes)  # type: ignore[arg-type]  # members are named by the caller


def outgoing(
    tool: ToolVersion,
    server: Server,
    arguments: JsonObject,
    *,
    timeout_s: float = 20.0,
    secret: str | None = None,
    guard: JsonObject | None = None,
) -> OutgoingCall:
    """Return one attempt of a tool on a server."""
    return OutgoingCall(
        binding=Binding(
            tool=tool,
            environment=server.environment,
            server=server,
            pin="sha256:0",
            credentials="secret://outside/dev/agent" if secret else None,
        ),
        arguments=arguments,
        effect_id=EffectId("e" * 32),
        idem_key="k" * 32,
        attempt=1,
        timeout_s=timeout_s,
        secret=secret,
        guard=guard,
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )


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
    outside = Outside(
        server=server,
        declare=lambda operation: HttpRequest(
            method="POST", path=f"/{operation}", body="in:", key_header="Idempotency-Key"
        ),
        kind=ConnectorKind.HTTP,
        away=replace(server, name="away", url=f"http://127.0.0.1:{free_port()}/base"),
    )
    try:
        yield outside
    finally:
        released.set()
        await outside.pool.aclose()
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
    outside = Outside(
        server=server,
        declare=lambda operation: McpCall(upstream=operation),
        kind=ConnectorKind.MCP,
        away=replace(server, name="away", url=f"http://127.0.0.1:{free_port()}/mcp"),
        forget=mcp.session_manager._server_instances.clear,
    )
    try:
        yield outside
    finally:
        await outside.pool.aclose()
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
    outside = Outside(
        server=server,
        declare=lambda operation: McpCall(upstream=operation),
        kind=ConnectorKind.MCP,
        pool=ConnectorPool(variables={"LISTED": "1", "UNLISTED": "1"}),
        away=replace(server, name="away", argv=("/nowhere/at/all",)),
    )
    try:
        yield outside
    finally:
        await outside.pool.aclose()


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
    outside = Outside(
        server=server,
        declare=lambda operation: PythonCall(function=operation),
        kind=ConnectorKind.PYTHON,
        pool=ConnectorPool(functions_by_name(functions)),
        away=server,
        away_operation="unregistered",
    )
    try:
        yield outside
    finally:
        await outside.pool.aclose()


def _counter(counts: Counter[str]) -> Callable[..., Json]:
    def count(of: str) -> Json:
        return {"count": counts[of]}

    return count
