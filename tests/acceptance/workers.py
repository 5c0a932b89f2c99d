"""Workers as processes that can be killed: forked from one server that has imported everything."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

_PRELOADED = (
    "tests.acceptance.road_worker",
    "tests.acceptance.durable_worker",
    "tests.acceptance.desk_worker",
)


def run_worker(work: Callable[..., None], *arguments: str, timeout_s: float = 50.0) -> int | None:
    """Run `work` in a process of its own and return its exit code, -9 if it was killed.

    The process is real; only the imports are shared, which would be most of its time. None if it
    did not end in time; it is killed then.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join(timeout_s)
    code: int | None = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    return code
