"""RabbitMQ: a queue that its readers share, read one message at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aio_pika import IncomingMessage
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from interlock.serve.queues.port import TAKE_S, Login, Taken
from interlock.serve.queues.security import security_of

_LOOK_S = 0.2


class RabbitReader:
    """Takes the messages of one queue, which is the operator's to make."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._broker = RabbitBroker(
            login.queue.url,
            security=security_of(login),
            logger=None,
            # A dead letter that no queue keeps is an error, not lost.
            default_channel=Channel(on_return_raises=True),
        )

    async def open(self) -> None:
        """Connect, and find the queue."""
        await self._broker.connect()
        named = RabbitQueue(self._login.queue.name, declare=False)
        self._queue = await self._broker.declare_queue(named)

    async def take(self) -> Taken | None:
        """Ask for a message until there is one or the time is over."""
        for _ in range(round(TAKE_S / _LOOK_S)):
            # Never given up half way: the message would be held by nobody until we leave.
            message = await self._queue.get(no_ack=False, fail=False)
            if message is not None:
                return _taken(message)
            await asyncio.sleep(_LOOK_S)
        return None

    async def put_aside(self, name: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publish to a queue of that name, and wait until the server has it."""
        await self._broker.publish(body, queue=name, headers=dict(headers), persist=True)

    async def is_connected(self) -> bool:
        """Return whether the connection stands."""
        return await self._broker.ping(TAKE_S)

    async def close(self) -> None:
        """Leave; what is held goes back to its place in the queue."""
        await self._broker.stop()


def _taken(message: IncomingMessage) -> Taken:
    earlier = message.headers.get("x-delivery-count", 0)

    async def keep() -> None:
        """Nothing to say: a message is held for as long as its reader is connected."""

    return Taken(
        body=message.body,
        message_id=message.message_id,
        # Only quorum queues count.
        deliveries=1 + (earlier if isinstance(earlier, int) else 0),
        done=message.ack,
        back=message.nack,
        # The queue's own dead-letter exchange gets it, if it has one.
        drop=message.reject,
        keep=keep,
    )
