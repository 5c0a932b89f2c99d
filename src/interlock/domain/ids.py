"""Typed identifiers: one name per thing, so that a run's id can never be passed as an effect's."""

from __future__ import annotations

import hashlib
from typing import NewType

RunId = NewType("RunId", str)
"""UUIDv7 in its 36-character form; without the dashes it is the trace id."""
EffectId = NewType("EffectId", str)
"""32 hex digits, derived from run and step name."""
DecisionId = NewType("DecisionId", str)
ApprovalId = NewType("ApprovalId", str)
ExecutorId = NewType("ExecutorId", str)
StepName = NewType("StepName", str)
TenantId = NewType("TenantId", str)
ToolName = NewType("ToolName", str)
"""`<system>.<noun>.<verb>`, lower case; also the Cedar action and the name that agents see."""
WorkflowName = NewType("WorkflowName", str)
AgentName = NewType("AgentName", str)


def effect_id_of(run_id: RunId, step_name: StepName) -> EffectId:
    """Derive the id of the effect of one step of one run.

    Never from arguments, attempt or epoch: after a crash the model may word the same call
    differently, and it must still be the same effect.
    """
    return EffectId(_short_hash("effect", run_id, step_name))


def idempotency_key_of(effect_id: EffectId) -> str:
    """Derive the key that is sent upstream with every attempt of one effect (32 hex digits)."""
    return _short_hash("key", effect_id)


def trace_id_of(run_id: RunId) -> str:
    """Return the W3C trace id of a run: its UUID without dashes (32 hex digits)."""
    return run_id.replace("-", "")


def _short_hash(*parts: str) -> str:
    text = "\x1f".join(parts).encode()
    return hashlib.sha256(text).hexdigest()[:32]
