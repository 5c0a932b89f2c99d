"""Branches of a segment: stopped together, told to go on, their results in the order given."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from interlock.domain.canonical import Json
from interlock.domain.ids import StepName
from interlock.runtime.durable.waiting import Wait


class Group:
    """The branches of one `gather`; a stopped group refuses further operations in its branches."""

    def __init__(self, outer: Group | None) -> None:
        self._outer = outer
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether this group, or one around it, is to stop."""
        return self._is_stopped or (self._outer is not None and self._outer.is_stopped)

    def stop(self) -> None:
        """Refuse further operations in these branches."""
        self._is_stopped = True


@dataclass(slots=True, kw_only=True)
class Waiter:
    """A branch that waits, until it is told that its wait may end."""

    wait: Wait
    group: Group | None
    ready: asyncio.Future[None]


def go_on(waiters: Mapping[StepName, Waiter], names: Sequence[StepName]) -> None:
    """Let these branches look whether their wait has ended."""
    for name in names:
        if not waiters[name].ready.done():
            waiters[name].ready.set_result(None)


group_of_branch: ContextVar[Group | None] = ContextVar("interlock_group", default=None)


def results_of(
    tasks: Sequence[asyncio.Task[Json]], on_error: Literal["fail_fast", "collect"]
) -> list[Json | BaseException]:
    """Return what ended branches returned; `fail_fast` raises the first error instead.

    A branch that was stopped from outside raises `CancelledError`: all of this is to stop then.
    """
    results: list[Json | BaseException] = []
    for task in tasks:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and on_error == "fail_fast" and not task.cancelled():
            raise error
        results.append(task.result() if error is None else error)
    if any(isinstance(result, asyncio.CancelledError) for result in results):
        # A branch stops without an error of its own only because all of this is to stop.
        raise asyncio.CancelledError
    return results
