"""Definitions of MCP tools: what a pin covers, and how a difference is told to people."""

from __future__ import annotations

import pytest
from mcp_types import Tool, ToolAnnotations

from interlock.domain.canonical import JsonObject
from interlock.tools.upstream import definitions, pin_of

PLAIN = Tool(name="echo", input_schema={"type": "object"})


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.model_copy(update={"name": "echo2"}),
        PLAIN.model_copy(update={"title": "Echo"}),
        PLAIN.model_copy(update={"description": "Echo"}),
        PLAIN.model_copy(update={"input_schema": {"type": "object", "required": []}}),
        PLAIN.model_copy(update={"output_schema": {"type": "object"}}),
        PLAIN.model_copy(update={"annotations": ToolAnnotations(read_only_hint=True)}),
    ],
    ids=["name", "title", "description", "input", "output", "annotations"],
)
def test_a_pin_covers_all_that_a_server_says(other: Tool) -> None:
    """Any word that changes makes another pin."""
    [plain], [changed] = definitions([PLAIN]).values(), definitions([other]).values()

    assert pin_of(plain) != pin_of(changed)


def test_the_order_of_members_is_no_difference() -> None:
    """Nor is what the protocol leaves out."""
    one: JsonObject = {"name": "echo", "inputSchema": {"type": "object"}}
    other: JsonObject = {"inputSchema": {"type": "object"}, "name": "echo"}

    assert pin_of(one) == pin_of(other) == pin_of(definitions([PLAIN])["echo"])


def test_what_is_no_strict_json_has_no_pin() -> None:
    """So it is never the same as anything."""
    assert pin_of({"name": "echo", "inputSchema": {"maximum": float("nan")}}) is None
