"""Brokers of the tests' own, each a real process on a free port, and the world's view of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path

import aio_pika
import nats
import redis
from aio_pika import Channel, DeliveryMode, Message
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from interlock.serve.queues.nats import durable_name
from interlock.testing.process import free_port

START_S = 50.0
MOST_BYTES = 2 * 1024 * 1024
"""The largest message that NATS takes here, headers included."""
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
        settings = self._folder / "nats.conf"
        settings.write_text(f"max_payload: {MOST_BYTES}\n")
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._folder / "data")]
        return [self.program() or "", "-c", str(settings), *where]

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
            try:
                about = await client.jetstream().consumer_info(
                    _stream(name), durable_name(group, name)
                )
                found.append((about.num_pending or 0) + (about.num_ack_pending or 0))
            except NotFoundError:
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

    def _do(self, work: Callable[[Client], Coroutine[object, object, None]]) -> None:
        async def run() -> None:
            client = await nats.connect(self.url)
            try:
                await work(client)
            finally:
                await client.close()

        asyncio.run(run())


def _stream(name: str) -> str:
    return name.replace(".", "_").upper()


class Redis(Broker):
    """Redis; a name is the key of a stream."""

    scheme = "redis"
    programs = ("redis-server",)

    def command(self) -> list[str]:
        """Return the command of a server that writes everything down."""
        program = self.program() or ""
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        return [program, *where, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]

    def make(self, name: str) -> None:
        """Delete the stream: the first message makes it."""
        with self._client() as client:
            client.delete(name)

    def send(self, name: str, *bodies: bytes, message_id: str | None = None) -> None:
        """Add entries, whose ids are the server's."""
        with self._client() as client:
            for body in bodies:
                client.xadd(name, {"data": body})

    def open_messages(self, name: str, group: str) -> int:
        """Count entries that the group has yet to read, and those that it holds."""
        with self._client() as client:
            for about in client.xinfo_groups(name) if client.exists(name) else ():
                if about["name"] == group.encode():
                    return int(about["pending"]) + len(
                        client.xrange(name, min=f"({about['last-delivered-id'].decode()}")
                    )
            return int(client.xlen(name))

    def dead(self, name: str) -> list[Dead]:
        """Read the stream."""
        with self._client() as client:
            return [
                (fields[b"data"], fields[b"interlock-code"].decode())
                for _, fields in client.xrange(name)
            ]

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


class Rabbit(Broker):
    """RabbitMQ with an epmd of its own; a name is a quorum queue."""

    scheme = "amqp"
    programs = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = free_port(), free_port()

    def command(self) -> list[str]:
        """Return the command of a node."""
        return [self.program() or ""]

    def environment(self) -> Mapping[str, str]:
        """Return the variables that keep the node to its folder and ports."""
        epmd, distribution = self._ports
        return {
            **os.environ,
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_MNESIA_BASE": str(self._folder),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def start(self) -> None:
        """Start the node with an epmd of its own, which would stay otherwise."""
        self._epmd = subprocess.Popen([shutil.which("epmd") or "", "-port", str(self._ports[0])])
        super().start()

    def stop(self) -> None:
        """Stop the node and its epmd."""
        self._epmd.kill()
        self._epmd.wait(timeout=START_S)
        with suppress(OSError, ValueError):
            os.kill(int((self._folder / "pid").read_text()), signal.SIGKILL)
        super().stop()

    def make(self, name: str) -> None:
        """Make a quorum queue."""

        async def make(channel: Channel) -> None:
            await channel.queue_delete(name)
            await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})

        self._do(make)

    def send(self, name: str, *bodies: bytes, message_id: str | None = None) -> None:
        """Publish to the queue."""

        async def send(channel: Channel) -> None:
            for body in bodies:
                message = Message(
                    body, message_id=message_id, delivery_mode=DeliveryMode.PERSISTENT
                )
                await channel.default_exchange.publish(message, routing_key=name)

        self._do(send)

    def open_messages(self, name: str, group: str) -> int:
        """Count what is ready; what is held is not seen from outside."""
        found: list[int] = []

        async def count(channel: Channel) -> None:
            queue = await channel.declare_queue(name, passive=True)
            found.append(queue.declaration_result.message_count or 0)

        self._do(count)
        return found[0]

    def dead(self, name: str) -> list[Dead]:
        """Look at what the queue holds, and leave it there."""
        found: list[Dead] = []

        async def read(channel: Channel) -> None:
            queue = await channel.declare_queue(name, passive=True)
            while (message := await queue.get(fail=False)) is not None:
                found.append((message.body, str(message.headers["interlock-code"])))

        self._do(read)
        return found

    def _do(self, work: Callable[[Channel], Coroutine[object, object, None]]) -> None:
        async def run() -> None:
            connection = await aio_pika.connect(self.url)
            async with connection:
                await work(await connection.channel())  # type: ignore[arg-type]  # the only kind

        asyncio.run(run())


BROKERS: dict[str, type[Broker]] = {"nats": Nats, "rabbit": Rabbit, "redis": Redis}
