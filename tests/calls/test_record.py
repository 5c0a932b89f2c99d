"""What a reply means: the table of the effect contract, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from interlock.calls.protocol import Verdict
from interlock.calls.record import classify
from interlock.domain.effect import Reply, Transport
from interlock.domain.ids import ToolName
from interlock.domain.tool import (
    ConnectorKind,
    EffectClass,
    EffectSpec,
    Guard,
    HttpRequest,
    ToolVersion,
)

TOOL = ToolVersion(
    name=ToolName("desk.ticket.create"),
    version=1,
    owner="platform",
    title="Create",
    description="Create",
    system="desk",
    connector=ConnectorKind.HTTP,
    request=HttpRequest(method="POST", path="/tickets"),
    input_schema={"type": "object"},
    output_schema={"type": "object", "required": ["id"]},
    effect=EffectSpec(
        effect_class=EffectClass.KEYED,
        key_ttl_s=60,
        no_effect=(400, 503),
        in_progress=(425,),
        key_reused=(409,),
    ),
)
_VERSION = Guard(kind="version", refused=(412, 428), version="in:/etag")
_LINK = Guard(kind="one_time_link", refused=(400,), obtain="POST /links", link="out:/link")
_CLIENT_ID = Guard(kind="client_id", refused=(409,))


def _guarded(guard: Guard) -> ToolVersion:
    return replace(TOOL, effect=EffectSpec(effect_class=EffectClass.CONDITIONAL, guard=guard))


def _said(status: int, **more: object) -> Reply:
    return Reply(transport=Transport.REPLY, status=status, **more)  # type: ignore[arg-type]


ROWS: Mapping[str, tuple[Reply, Verdict, str | None]] = {
    "not sent": (Reply(transport=Transport.NOT_SENT), Verdict.NOT_SENT, "call.not_sent"),
    "a status that proves nothing was done": (
        _said(400),
        Verdict.NOTHING_DONE,
        "call.refused",
    ),
    "no such method of MCP": (_said(-32601), Verdict.NOTHING_DONE, "call.refused"),
    "no such parameters of MCP": (_said(-32602), Verdict.NOTHING_DONE, "call.refused"),
    "a result that fits": (_said(200, body={"id": "1"}), Verdict.SUCCEEDED, None),
    "a result that cannot be read": (
        _said(200, problem="cut"),
        Verdict.UNKNOWN,
        "call.unreadable",
    ),
    "a result of another shape": (_said(200, body={}), Verdict.UNKNOWN, "contract.result"),
    "silence": (Reply(transport=Transport.UNKNOWN), Verdict.UNKNOWN, "call.unanswered"),
    "another 5xx": (_said(500), Verdict.UNKNOWN, "call.failed"),
    "another 4xx": (_said(404), Verdict.UNKNOWN, "call.failed"),
    "an error of MCP or Python": (
        _said(200, is_error=True, body={"id": "1"}),
        Verdict.UNKNOWN,
        "call.failed",
    ),
    "still working on it": (_said(425), Verdict.IN_PROGRESS, "call.in_progress"),
    "same key, other body": (_said(409), Verdict.KEY_REUSED, "call.key_reused"),
}


@pytest.mark.parametrize("is_in_doubt", [False, True])
@pytest.mark.parametrize(("reply", "verdict", "code"), ROWS.values(), ids=list(ROWS))
def test_a_reply_is_read_by_the_contract(
    reply: Reply, verdict: Verdict, code: str | None, *, is_in_doubt: bool
) -> None:
    """Silence and errors are unknown; nothing was done only if the contract says so."""
    reading = classify(reply, TOOL, is_in_doubt=is_in_doubt)

    assert (verdict, code) == (reading.verdict, reading.code)
    assert (verdict is Verdict.SUCCEEDED) == (reading.output is not None)


@pytest.mark.parametrize(
    ("guard", "status", "is_in_doubt", "verdict"),
    [
        (_VERSION, 412, False, Verdict.CONFLICT),
        (_VERSION, 412, True, Verdict.GUARD_REFUSED),
        (_LINK, 400, False, Verdict.GUARD_REFUSED),
        (_LINK, 400, True, Verdict.GUARD_REFUSED),
        (_CLIENT_ID, 409, False, Verdict.GUARD_REFUSED),
    ],
)
def test_a_refused_guard_proves_only_that_no_second_write_happened(
    guard: Guard, status: int, verdict: Verdict, *, is_in_doubt: bool
) -> None:
    """A version check refused on the only request is a conflict; all else has to be looked up."""
    reading = classify(_said(status), _guarded(guard), is_in_doubt=is_in_doubt)

    assert verdict is reading.verdict


@pytest.mark.parametrize("status", [503, 400])
def test_only_a_busy_tool_is_worth_another_attempt(status: int) -> None:
    """A refusal of this very request would be given again."""
    assert (status == 503) == classify(_said(status), TOOL, is_in_doubt=False).is_retryable


def test_what_breaks_a_contract_is_withheld() -> None:
    """The message names the place and holds nothing of the result."""
    reading = classify(_said(200, body={"x": "hunter2"}), TOOL, is_in_doubt=False)

    assert "hunter2" not in str(reading.message)
