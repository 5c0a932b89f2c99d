"""Redis Streams: a consumer group; what another reader holds for too long is claimed from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from faststream.redis import RedisBroker, RedisStreamMessage, StreamSub
from faststream.redis.message import DATA_KEY, DefaultStreamMessage
from faststream.redis.subscriber.usecases import StreamSubscriber
from redis.exceptions import ResponseError

from interlock.serve.queues.port import TAKE_S, Login, Taken
from interlock.serve.queues.security import security_of

_Field = bytes | bytearray | memoryview | str | int | float
_BODY = b"data"
"""The field of an entry that holds the message, for a start and in dead letters."""
_READER = "interlock"
"""All readers of a group share one name: what each holds is told apart by its idle time."""


class RedisReader:
    """Takes the entries of one stream; their field `data` is the message."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._broker = RedisBroker(
            login.queue.url,
            security=security_of(login),
            logger=None,  # type: ignore[arg-type]  # its annotation forgets None, which it takes
        )

    async def open(self) -> None:
        """Connect and make the group, and the stream, unless they are there."""
        queue = self._login.queue
        self._client = await self._broker.connect()
        try:
            await self._client.xgroup_create(queue.name, queue.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._left = await self._subscribe(min_idle_time=int(self._login.redeliver_s * 1000))
        self._fresh = await self._subscribe()

    async def take(self) -> Taken | None:
        """Claim an entry that was left, or read a new one."""
        message = await self._left.get_one() or await self._fresh.get_one(timeout=TAKE_S)
        return None if message is None else await self._taken(message)

    async def put_aside(self, name: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Add an entry with the headers as further fields."""
        fields: dict[_Field, _Field] = {_BODY: body}
        fields.update(headers)
        await self._client.xadd(name, fields)

    async def is_connected(self) -> bool:
        """Return whether the server answers."""
        return await self._broker.ping(TAKE_S)

    async def close(self) -> None:
        """Leave; what is held is claimed by others when its time is over."""
        await self._broker.stop()

    async def _subscribe(self, *, min_idle_time: int | None = None) -> StreamSubscriber:
        queue = self._login.queue
        subscriber: StreamSubscriber = self._broker.subscriber(
            stream=StreamSub(
                queue.name, group=queue.group, consumer=_READER, min_idle_time=min_idle_time
            ),
            parser=_as_it_is,
        )
        await subscriber.start()
        return subscriber

    async def _taken(self, message: RedisStreamMessage) -> Taken:
        queue, (entry_id,) = self._login.queue, message.raw_message["message_ids"]

        async def keep() -> None:
            await self._client.xclaim(queue.name, queue.group, _READER, 0, [entry_id], justid=True)

        async def back() -> None:
            """Leave it to be claimed."""

        return Taken(
            body=message.raw_message["data"].get(_BODY, b""),
            message_id=entry_id.decode(),
            deliveries=await message.get_delivery_count(),
            done=message.ack,
            back=back,
            # The entry stays in the stream, which is a log.
            drop=message.ack,
            keep=keep,
        )


async def _as_it_is(
    raw: DefaultStreamMessage,
    parse: Callable[[DefaultStreamMessage], Awaitable[RedisStreamMessage]],
) -> RedisStreamMessage:
    """Keep the library from reading the fields: one that it cannot read would end up nowhere."""
    return await parse({**raw, "data": {**raw["data"], DATA_KEY.encode(): b"-"}})
