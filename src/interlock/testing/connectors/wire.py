"""A wire that fails on purpose: passes HTTP on to a server, all but one request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from interlock.domain.tool import Server

MARK = b"the-call-that-fails"
"""The text by which the wire knows the request that it is to answer itself."""

_BROKEN = (asyncio.IncompleteReadError, OSError)
_END = b"\r\n\r\n"


@dataclass(kw_only=True)
class Wire:
    """The entry by which the server is reached over this wire, and what went over it.

    `answer` is sent part by part to the request that holds `MARK`; then the connection ends.
    `marked` are the whole requests that held it, `passed` all others.
    """

    server: Server
    answer: Iterable[bytes] = ()
    connections: int = 0
    taken_bytes: int = 0
    marked: list[bytes] = field(default_factory=list)
    passed: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def opened_wire(server: Server) -> AsyncIterator[Wire]:
    """Put a wire before a server that is reached by an `http` URL."""
    url = urlsplit(server.url or "")
    to = (url.hostname or "", url.port or 80)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        task = asyncio.create_task(_serve(wire, to, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    wire = Wire(server=replace(server, url=f"http://127.0.0.1:{port}{url.path}"))
    try:
        yield wire
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    wire: Wire, to: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            request = await _request(reader)
            if MARK in request:
                wire.marked.append(request)
                await _fail(wire, writer)
                return
            wire.passed.append(request)
            if not await _pass(to, request, writer):
                return
    except _BROKEN:
        return
    finally:
        writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(_END)
    size = _header(head, b"content-length")
    return head + await reader.readexactly(int(size or 0))


async def _fail(wire: Wire, writer: asyncio.StreamWriter) -> None:
    for part in wire.answer:
        writer.write(part)
        await writer.drain()
        wire.taken_bytes += len(part)


async def _pass(to: tuple[str, int], request: bytes, writer: asyncio.StreamWriter) -> bool:
    """Pass one exchange on; return whether the connection can be used for another."""
    reader, server = await asyncio.open_connection(*to)
    try:
        head, _, body = request.partition(_END)
        server.write(_without_connection(head) + b"\r\nConnection: close" + _END + body)
        answer = await reader.readuntil(_END)
        writer.write(_without_connection(answer))
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    finally:
        server.close()
        with suppress(OSError):
            await server.wait_closed()
    is_framed = any(_header(answer, x) for x in (b"content-length", b"transfer-encoding"))
    return is_framed or answer.split(b" ", 2)[1] == b"204"


def _without_connection(head: bytes) -> bytes:
    lines = (x for x in head.split(b"\r\n") if not x.lower().startswith(b"connection:"))
    return b"\r\n".join(lines)


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in itertools.islice(head.split(b"\r\n"), 1, None):
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
