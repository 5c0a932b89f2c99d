"""NATS: a durable pull consumer of JetStream for each group and subject."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.nats.subscriber.usecases import PullStreamSubscriber
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from interlock.domain.errors import UnavailableError
from interlock.serve.queues.port import TAKE_S, Login, Taken
from interlock.serve.queues.security import security_of

_ID = "Nats-Msg-Id"
_HEADERS_MOST = 4096


class NatsReader:
    """Takes messages of one subject; the stream that keeps them is the operator's to make."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._broker = NatsBroker(
            login.queue.url,
            security=security_of(login),
            logger=None,
            # Connecting anew is the consumer's business, the same for all brokers.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
        )

    async def open(self) -> None:
        """Connect and join the durable consumer of this group and subject."""
        queue = self._login.queue
        self._client = await self._broker.connect()
        try:
            stream = await self._client.jetstream().find_stream_name_by_subject(queue.name)
        except NotFoundError:
            raise UnavailableError(f"no stream keeps the subject `{queue.name}`") from None
        self._subscriber: PullStreamSubscriber = self._broker.subscriber(
            queue.name,
            stream=JStream(stream, declare=False),
            durable=durable_name(queue.group, queue.name),
            pull_sub=PullSub(batch_size=1),
            config=ConsumerConfig(ack_wait=self._login.redeliver_s),
        )
        await self._subscriber.start()

    async def take(self) -> Taken | None:
        """Fetch one message."""
        message = await self._subscriber.get_one(timeout=TAKE_S)
        return None if message is None else _taken(message)

    async def put_aside(self, name: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publish to a subject, which a stream has to keep; cut if headers make it too long."""
        most, given = self._client.max_payload - _HEADERS_MOST, dict(headers)
        if len(body) > most:
            given["interlock-cut"] = f"{most} of {len(body)} bytes"
        await self._client.jetstream().publish(name, body[:most], headers=given)

    async def is_connected(self) -> bool:
        """Return whether the connection stands."""
        return self._client.is_connected

    async def close(self) -> None:
        """Leave the consumer, which stays."""
        await self._broker.stop()


def durable_name(group: str, subject: str) -> str:
    """Return the name of the consumer; its subject is part of it, since that cannot change.

    >>> durable_name("interlock", "orders.*")
    'interlock_orders___6169d6'
    """
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{group}_{subject}")
    return f"{readable}_{hashlib.sha256(subject.encode()).hexdigest()[:6]}"


def _taken(message: NatsMessage) -> Taken:
    about = message.raw_message.metadata
    # A stream that is made anew counts from one again, but not at the same time.
    stored = f"{about.stream}/{about.sequence.stream}/{about.timestamp.isoformat()}"
    return Taken(
        body=message.raw_message.data,
        message_id=message.headers.get(_ID) or stored,
        deliveries=about.num_delivered,
        done=message.ack,
        back=message.nack,
        drop=message.reject,
        keep=message.in_progress,
    )
