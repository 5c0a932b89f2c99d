from __future__ import annotations

from interlock.domain.agent import AgentLimits


def test_agent_is_always_stopped_somewhere() -> None:
    """An agent that declares no limits still has them, so no loop is endless."""
    limits = AgentLimits()

    assert (20, 5, 3) == (limits.requests, limits.refusals_in_a_row, limits.equal_calls)
