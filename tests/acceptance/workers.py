"""Workers of the acceptance tests as processes that can be killed."""

from __future__ import annotations

from collections.abc import Callable

from proofs import workers

_PRELOADED = (
    "tests.acceptance.road_worker",
    "tests.acceptance.durable_worker",
    "tests.acceptance.desk_worker",
)


def run_worker(work: Callable[..., None], *arguments: str, timeout_s: float = 50.0) -> int | None:
    """Run `work` in a process of its own and return its exit code, -9 if it was killed."""
    return workers.run_worker(work, *arguments, preloaded=_PRELOADED, timeout_s=timeout_s)
