"""Brokers of the tests' own, each a real process on a free port, and the world's view of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from interlock.testing.process import free_port

START_S = 50.0
_pause = threading.Event()

Dead = tuple[bytes, str]
"""A dead letter: its body and the code in its headers."""


def soon(seconds: float = 0.02) -> None:
    """Let a moment pass before looking again."""
    _pause.wait(seconds)


class Broker(ABC):
    """One broker: `programs` are where its server may be; all data is in `folder`."""

    scheme: str
    programs: tuple[str, ...]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def program(cls) -> str | None:
        """Return the server's program, or None if this machine has none."""
        return next((found for name in cls.programs if (found := shutil.which(name))), None)

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and return when it answers; again after a stop, with its data."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), env=self.environment(), stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-2000:]
            soon()

    def stop(self) -> None:
        """Stop the server on the spot."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=START_S)
            self._process = None

    def environment(self) -> Mapping[str, str]:
        """Return the variables that the server gets."""
        return os.environ

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that starts the server in the foreground."""

    @abstractmethod
    def make(self, name: str) -> None:
        """Make what keeps the messages of a name, and forget what it kept."""

    @abstractmethod
    def send(self, name: str, *bodies: bytes, message_id: str | None = None) -> None:
        """Send messages as any sender would."""

    @abstractmethod
    def open_messages(self, name: str, group: str) -> int:
        """Return how many messages of a name the group has not settled yet."""

    @abstractmethod
    def dead(self, name: str) -> list[Dead]:
        """Return the messages that were put aside at a name."""

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Nats(Broker):
    """NATS with JetStream; one stream keeps all names that start with `orders` or `dead`."""

    scheme = "nats"
    programs = ("nats-server",)

    def command(self) -> list[str]:
        """Return the command of a server without a cluster."""
        program = self.program() or ""
        data = str(self._folder / "data")
        return [program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", data]

    def make(self, name: str) -> None:
        """Make a stream for this one subject."""

        async def make(client: Client) -> None:
            stream = _stream(name)
            with suppress(NotFoundError):
                await client.jetstream().delete_stream(stream)
            await client.jetstream().add_stream(name=stream, subjects=[name])

        self._do(make)

    def send(self, name: str, *bodies: bytes, message_id: str | None = None) -> None:
        """Publish to the subject."""

        async def send(client: Client) -> None:
            for body in bodies:
                headers = None if message_id is None else {"Nats-Msg-Id": message_id}
                await client.jetstream().publish(name, body, headers=headers)

        self._do(send)

    def open_messages(self, name: str, group: str) -> int:
        """Count what the group's consumer has yet to take and what it holds."""
        found: list[int] = []

        async def count(client: Client) -> None:
            for about in await client.jetstream().consumers_info(_stream(name)):
                if about.name.startswith(f"{group}_"):
                    found.append((about.num_pending or 0) + (about.num_ack_pending or 0))
            if not found:
                state = (await client.jetstream().stream_info(_stream(name))).state
                found.append(state.messages)

        self._do(count)
        return found[0]

    def dead(self, name: str) -> list[Dead]:
        """Read the stream of the subject."""
        found: list[Dead] = []

        async def read(client: Client) -> None:
            last = (await client.jetstream().stream_info(_stream(name))).state.last_seq
            for sequence in range(1, last + 1):
                message = await client.jetstream().get_msg(_stream(name), seq=sequence)
                headers = message.headers or {}
                found.append((message.data or b"", headers["interlock-code"]))

        self._do(read)
        return found

    def _do(self, work: object) -> None:
        async def run() -> None:
            client = await nats.connect(self.url)
            try:
                await work(client)  # type: ignore[operator]  # one of the functions above
            finally:
                await client.close()

        asyncio.run(run())


def _stream(name: str) -> str:
    return name.replace(".", "_").upper()


BROKERS: dict[str, type[Broker]] = {"nats": Nats}
