from __future__ import annotations

from interlock.domain.ids import RunId
from interlock.domain.trace import Span, SpanKind, SpanStatus


def test_new_span_is_open_and_nothing_failed() -> None:
    """A span without an end is still open; waiting and refused calls are no errors."""
    span = Span(
        run_id=RunId("r"),
        key="root",
        parent_key=None,
        kind=SpanKind.WORKFLOW,
        name="invoke_workflow triage",
        start_us=1,
    )

    assert (None, SpanStatus.OK, None) == (span.end_us, span.status, span.error_code)


def test_kinds_that_no_standard_names_are_ours() -> None:
    """A kind is an operation of OpenTelemetry's generative-AI table, or carries our prefix."""
    standard = {"invoke_workflow", "invoke_agent", "chat", "execute_tool"}

    assert standard == {kind.value for kind in SpanKind if not kind.value.startswith("interlock.")}
