"""A slow TCP proxy that loses answers on their way back: what they answer is done by then.

A request that is under way goes on although its sender was killed.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 65_536
_HELD_S = 4.0
"""Longer than a call waits for its answer."""
_LONGEST_WAY_S = 0.3
"""Of each request and each answer, so that there is something on its way when harm is done."""


@dataclass(slots=True, kw_only=True)
class LosingProxy:
    """Passes bytes on to `port`; of the answers it loses a share, half of them by silence."""

    port: int
    share: float
    draw: random.Random
    lost: int = 0
    passed: int = 0
    own_port: int = 0
    _stop: Callable[[], object] = field(default=lambda: None)

    @property
    def url(self) -> str:
        """Return where the proxy listens."""
        return f"http://127.0.0.1:{self.own_port}"

    async def serve(self, ready: threading.Event) -> None:
        """Serve until told to stop."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.own_port = server.sockets[0].getsockname()[1]
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        ready.set()
        await stopped.wait()
        server.close()

    def stop(self) -> None:
        """Cut every connection, from another thread."""
        self._stop()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.transport.abort()
            return
        asked = asyncio.Event()
        tasks = [
            asyncio.create_task(self._ask(reader, up_writer, asked)),
            asyncio.create_task(self._answer(up_reader, writer, asked)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            _reset(writer)
            up_writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(_CHUNK):
            asked.set()
            await asyncio.sleep(self.draw.uniform(0.0, _LONGEST_WAY_S))
            writer.write(data)
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(_CHUNK):
            if asked.is_set():
                asked.clear()
                self.passed += 1
                await asyncio.sleep(self.draw.uniform(0.0, _LONGEST_WAY_S))
                if self.draw.random() < self.share:
                    self.lost += 1
                    await asyncio.sleep(self.draw.choice([0.0, _HELD_S]))
                    return
            writer.write(data)
            await writer.drain()


@contextmanager
def losing_proxy(port: int, *, share: float, seed: int) -> Iterator[LosingProxy]:
    """Run a proxy in front of a server of this machine, in a thread of its own."""
    proxy = LosingProxy(port=port, share=share, draw=random.Random(seed))  # noqa: S311  # chance
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(ready)))
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its other end sees a reset, not an end."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
