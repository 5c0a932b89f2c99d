"""The port that every connector implements: send one call, say only what was seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Reply
from interlock.domain.ids import EffectId
from interlock.domain.tool import Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    """One attempt of one effect, ready to be sent.

    `arguments` come from the effect row. `secret` is the resolved credential (None if the binding
    has none); it is never logged. `guard` is what `prepare` returned and the intent stored.
    `timeout_s` is what remains until the send deadline.
    """

    binding: Binding
    arguments: JsonObject
    effect_id: EffectId
    idem_key: str
    attempt: int
    timeout_s: float
    secret: str | None = field(default=None, repr=False)
    guard: JsonObject | None = None
    traceparent: str | None = None


class Connector(Protocol):
    """Reaches the tools of one server; long-lived, safe for concurrent calls."""

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Fetch what a guard needs before the intent (a one-time link); None if nothing.

        Raises `UnavailableError` if it cannot be had; nothing was sent then.
        """
        ...

    async def send(self, call: OutgoingCall) -> Reply:
        """Send one call. Never raises for what the outside does; never retries or redirects.

        A refusal before the first byte left is NOT_SENT, with `is_unreachable` if the server is to
        blame for it and not the call, its address or this process; silence, reset or timeout after
        it is UNKNOWN; anything that came back is REPLY, with `problem` if it could not be read
        whole.
        Only the problem of a REPLY may repeat what came back: it raises the run's labels.
        """
        ...

    async def aclose(self) -> None:
        """Close clients and stop processes that this connector started."""
        ...
