from __future__ import annotations

from interlock.domain.run import RunState


def test_only_ended_runs_are_final() -> None:
    """Succeeded, failed and cancelled end a run; a dead-lettered one waits for a person."""
    assert ["succeeded", "failed", "cancelled"] == [
        state.value for state in RunState if state.is_final
    ]
