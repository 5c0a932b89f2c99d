"""Touches: one call read or wrote one outside record; together they are the lineage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interlock.domain.ids import EffectId, RunId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """One access to one outside record; `after` is the digest of what was seen or written."""

    tenant: TenantId
    run_id: RunId
    effect_id: EffectId
    system: str
    type: str
    external_id: str
    mode: Literal["read", "create", "update", "delete"]
    at_us: int
    after: str | None = None
