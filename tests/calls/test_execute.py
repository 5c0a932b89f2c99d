"""What the sender does before the first byte leaves."""

from __future__ import annotations

import threading
import time

import pytest

from interlock.calls.execute import ConnectorSender
from interlock.calls.road import Call, Proposal
from interlock.domain.effect import Transport
from interlock.domain.ids import RunId, WorkflowName
from interlock.domain.switch import Target
from interlock.domain.tool import ConnectorKind, Limits, PythonCall, Server
from interlock.store.engine import CrashPoints
from interlock.testing.connectors.outside import outgoing, tool_of
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.functions import python_function
from tests.conformance import store_rows

SERVER = Server(name="code", system="outside", environment="dev", kind="python")


def _call(*, timeout_s: float, decided_s_ago: float = 0.0) -> Call:
    limits = Limits(timeout_s=timeout_s, request_bytes=1000, response_bytes=1000)
    tool = tool_of(ConnectorKind.PYTHON, PythonCall(function="f"), limits=limits)
    effect = store_rows.effect(RunId("r"))
    proposal = Proposal(
        step_name=effect.step_name,
        tool=effect.tool,
        arguments=effect.arguments,
        seats=effect.seats,
        parent_span="run",
    )
    target = Target(
        tenant=effect.tenant,
        environment=effect.environment,
        department="it",
        workflow=WorkflowName(effect.workflow),
        seats=effect.seats,
    )
    return Call(
        target=target,
        proposal=proposal,
        effect=effect,
        tool=tool,
        binding=outgoing(tool, SERVER, {}, secret="kept").binding,
        sent_at_s=time.monotonic() - decided_s_ago,
    )


async def test_secret_that_cannot_be_read_in_time_is_not_sent() -> None:
    """A store of secrets that hangs costs the call its deadline, not its worker."""
    released, seen = threading.Event(), list[str]()

    def resolve(_reference: str) -> str:
        released.wait(30)
        return "s3cret"

    def write(title: str) -> None:
        seen.append(title)

    pool = ConnectorPool({"f": python_function("f", write)})
    sender = ConnectorSender(
        connect=pool.get,
        resolve=resolve,
        points=CrashPoints(),
        may_send=lambda: True,
        is_stopped=lambda _target: False,
    )

    reply = await sender.send(_call(timeout_s=0.05))
    released.set()

    assert (Transport.NOT_SENT, []) == (reply.transport, seen)
    assert "secret could not be read" in (reply.problem or "")


@pytest.mark.parametrize(("decided_s_ago", "transport"), [(0, "reply"), (2, "not_sent")])
async def test_kill_switches_are_read_again_if_the_call_was_decided_some_time_ago(
    decided_s_ago: float, transport: str
) -> None:
    """As when the commit or a secret took long: one that was set meanwhile stops the call.

    Not at once after the decision, which has read them itself.
    """
    seen = list[str]()

    def write(title: str) -> None:
        seen.append(title)

    pool = ConnectorPool({"f": python_function("f", write)})
    sender = ConnectorSender(
        connect=pool.get,
        resolve=lambda _reference: "s3cret",
        points=CrashPoints(),
        may_send=lambda: True,
        is_stopped=lambda target: target.department == "it",
    )

    reply = await sender.send(_call(timeout_s=30, decided_s_ago=decided_s_ago))

    assert transport == reply.transport.value
    assert (transport == "reply") is bool(seen)
