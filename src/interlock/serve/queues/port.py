"""The port to brokers: a message that is taken stays the broker's until it is settled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from interlock.domain.workflow import Queue

TAKE_S = 0.5
"""How long a reader waits for a message before it looks around."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to reach a broker: the queue, and `user:password` if it asks for them."""

    queue: Queue
    secret: str | None = None
    redeliver_s: float = 30.0
    """A message that nobody settled or kept for so long goes to another reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One message that this reader holds.

    `deliveries` counts how often the broker handed it out, this time included, as far as it
    counts. `done` settles it for good, `back` hands it to whoever reads next, `drop` settles what
    can start no run and has no dead letter, `keep` says that it is still being worked on.
    """

    body: bytes
    message_id: str | None
    deliveries: int
    done: Callable[[], Awaitable[None]]
    back: Callable[[], Awaitable[None]]
    drop: Callable[[], Awaitable[None]]
    keep: Callable[[], Awaitable[None]]


class Reader(Protocol):
    """A connection that takes the messages of one queue for one group; errors are the broker's."""

    async def open(self) -> None:
        """Connect, and join the group; a new group begins with the oldest message that is kept."""
        ...

    async def take(self) -> Taken | None:
        """Return the next message, or None if there is none for `TAKE_S`."""
        ...

    async def put_aside(self, name: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Store a message at the dead letter `name`; on return the broker has it."""
        ...

    async def is_connected(self) -> bool:
        """Return whether the broker is there."""
        ...

    async def close(self) -> None:
        """Leave; what is held and not settled goes to other readers."""
        ...
