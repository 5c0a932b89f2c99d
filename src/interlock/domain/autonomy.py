"""The autonomy ladder: how far a workflow acts by itself where it is earned, and what earns it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from interlock.domain.ids import WorkflowName
from interlock.domain.tool import Environment

EARNED_IN: Final[tuple[Environment, ...]] = ("stage", "prod")
"""In `dev` a workflow's file declares the level."""
HIGHEST: Final = 3
LEVELS: Final = ("drafts only", "each write approved", "low-risk writes unattended", "expanded")
SYSTEM: Final = "interlock"
"""Who lowers a level when no person does."""

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """The level of a workflow in an environment, since which release, by whom and why.

    `versions` fixes what acts (workflow, agents, tools), `counted_from` is the first release with
    exactly these: only what was done since then is evidence. `confirmed_by` is the second person
    of a promotion.
    """

    level: int
    since: int
    versions: str
    counted_from: int
    by: str
    reason: str
    confirmed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a step up takes: how many were judged, over how many days, and how many agreed.

    `agreement` is the 95 % Wilson lower bound of the share that people left as it was.
    """

    count: int
    agreement: float
    days: int = 0


BARS: Final[Mapping[int, Bar]] = {
    1: Bar(count=20, agreement=0.75),
    2: Bar(count=50, agreement=0.85, days=14),
    3: Bar(count=200, agreement=0.95),
}
"""For drafts, approved writes and unattended writes; a project may set others."""
REVIEWED_OF: Final[Mapping[int, int]] = {1: 1, 2: 1, 3: 2}
"""Of so many writes people judge one: of unattended ones every second is enough."""


def rung_key(workflow: WorkflowName | str, environment: Environment | str) -> str:
    """Return under which name a release keeps the rung of a workflow in an environment."""
    return f"{workflow}@{environment}"


def lower_bound(agreed: int, judged: int) -> float:
    """Return the 95 % Wilson lower bound of a share; 0 if nothing was judged.

    >>> round(lower_bound(19, 20), 3), round(lower_bound(48, 50), 3), lower_bound(0, 0)
    (0.764, 0.865, 0.0)
    """
    if not judged:
        return 0.0
    share, square = agreed / judged, _Z95 * _Z95
    centre = share + square / (2 * judged)
    spread = _Z95 * math.sqrt(share * (1 - share) / judged + square / (4 * judged * judged))
    return max(0.0, (centre - spread) / (1 + square / judged))
