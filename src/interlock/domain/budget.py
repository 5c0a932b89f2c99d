"""Budgets: how much money, how many tokens or calls may be spent, by whom and in which window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from interlock.domain.canonical import MAX_SAFE_INTEGER
from interlock.domain.run import Run

BudgetScope = Literal["run", "workflow", "department", "tenant"]
BudgetPeriod = Literal["run", "hour", "day", "month"]
BudgetUnit = Literal["micro_usd", "tokens", "calls"]

UNLIMITED_MICROS = MAX_SAFE_INTEGER
"""What is left where no budget of money covers a call."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent of one unit in each window; amounts are whole numbers of the unit.

    `of` names the workflow, department or tenant; of a budget for each run it names a workflow, or
    is None for all of them. From `soft` on it is reported, above `limit` it is refused. Days and
    months are those of `timezone`.
    """

    name: str
    title: str
    scope: BudgetScope
    of: str | None
    period: BudgetPeriod
    unit: BudgetUnit
    limit: int
    soft: int | None = None
    timezone: str = "UTC"

    def covers(self, run: Run) -> bool:
        """Return whether what a run does is paid from this budget."""
        request = run.request
        if self.scope == "department":
            return self.of == request.department
        if self.scope == "tenant":
            return self.of == request.tenant
        return self.of in {None, request.workflow}

    def account_of(self, run: Run) -> str:
        """Return whose spending a run's is counted with: that of its tree, or of all together."""
        if self.scope == "run":
            return str(run.request.root_id or run.run_id)
        return self.of or ""

    def window_at(self, now_us: int) -> Window:
        """Return the window that a moment lies in."""
        if self.period == "run":
            return Window(start_us=0, end_us=None)
        zone = UTC if self.period == "hour" else ZoneInfo(self.timezone)
        now = (_EPOCH + now_us * _MICROSECOND).astimezone(zone)
        if self.period == "hour":
            start = now.replace(minute=0, second=0, microsecond=0)
            return Window(start_us=_us(start), end_us=_us(start + timedelta(hours=1)))
        day = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.period == "day":
            # By the calendar: a day in which clocks change has 23 or 25 hours.
            return Window(start_us=_us(day), end_us=_us(day + timedelta(days=1)))
        start = day.replace(day=1)
        after = (start + timedelta(days=32)).replace(day=1)
        return Window(start_us=_us(start), end_us=_us(after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From when until when spending counts together; a run's has no end."""

    start_us: int
    end_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call or model request costs, or may cost at most, in each unit."""

    micro_usd: int
    tokens: int = 0
    calls: int = 1

    def in_unit(self, unit: BudgetUnit) -> int:
        """Return the amount that counts against a budget of this unit."""
        return {"micro_usd": self.micro_usd, "tokens": self.tokens, "calls": self.calls}[unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a budget stands in one window, `account` by account.

    `is_closed` after more was billed than was reserved, until the limit is raised.
    """

    budget: Budget
    account: str
    window: Window
    spent: int = 0
    reserved: int = 0
    is_closed: bool = False

    @property
    def left(self) -> int:
        """Return what can still be reserved, never less than 0."""
        return 0 if self.is_closed else max(0, self.budget.limit - self.spent - self.reserved)

    @property
    def is_soft_reached(self) -> bool:
        """Return whether it is to be reported."""
        soft = self.budget.soft
        return self.is_closed or (soft is not None and self.spent + self.reserved >= soft)

    def forecast(self, now_us: int) -> int | None:
        """Return what will be spent when the window ends at its pace so far; None if it never ends.

        At least what is spent and reserved now.
        """
        end_us, start_us = self.window.end_us, self.window.start_us
        if end_us is None:
            return None
        elapsed_us = max(now_us - start_us, 1)
        return max(self.spent * (end_us - start_us) // elapsed_us, self.spent + self.reserved)

    def reached_us(self, now_us: int) -> int | None:
        """Return when the limit is reached at the pace of the window so far; None if not in it."""
        end_us = self.window.end_us
        if end_us is None or not self.spent:
            return None
        elapsed_us = now_us - self.window.start_us
        reached_us = self.window.start_us + elapsed_us * self.budget.limit // self.spent
        return max(reached_us, now_us) if reached_us < end_us else None


def covering(budgets: Iterable[Budget], run: Run) -> tuple[Budget, ...]:
    """Return the budgets that a run's spending counts against, in the order they are locked in."""
    return tuple(sorted((b for b in budgets if b.covers(run)), key=lambda budget: budget.name))


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
