"""What the author of a connector brings to its suite: a server with six known operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import EffectId, ToolName
from interlock.domain.tool import (
    Binding,
    ConnectorKind,
    EffectClass,
    EffectSpec,
    Limits,
    Server,
    ToolRequest,
    ToolVersion,
)
from interlock.tools.connectors.port import Connector, OutgoingCall

REQUEST_BYTES = 1000
RESPONSE_BYTES = 5000

_ANY: JsonObject = {"type": "object"}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """A server, how a tool of it is declared, and how its connector is built.

    The server has these operations: `echo` (answers its argument `text` and the `key` that came
    with the call), `fail` (answers an error), `hang` (never answers), `large` (answers
    10 000 bytes of JSON), `unsafe` (answers `{"n": 2**60}`) and `count` (answers how often the
    operation in its argument `of` was called, as `count`). `away` is an entry behind which nothing
    answers, and `away_operation` what is asked of it. `cannot` names the checks that do not apply
    to this kind of connector, each with the reason.
    """

    kind: ConnectorKind
    server: Server
    declare: Callable[[str], ToolRequest]
    build: Callable[[Server], Connector]
    away: Server
    away_operation: str = "echo"
    cannot: Mapping[str, str] = field(default_factory=dict)

    def call(
        self,
        operation: str,
        *,
        server: Server | None = None,
        timeout_s: float = 20.0,
        secret: str | None = None,
        **given: Json,
    ) -> OutgoingCall:
        """Return one attempt of an operation."""
        tool = tool_of(self.kind, self.declare(operation))
        entry = server or self.server
        return outgoing(tool, entry, dict(given), timeout_s=timeout_s, secret=secret)


def tool_of(kind: ConnectorKind, request: ToolRequest, **changes: object) -> ToolVersion:
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
        input_schema=_ANY,
        output_schema=_ANY,
        limits=Limits(timeout_s=20.0, request_bytes=REQUEST_BYTES, response_bytes=RESPONSE_BYTES),
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
