"""Workers as processes that can be killed: forked from one server that has imported everything."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


def run_worker(
    work: Callable[..., None],
    *arguments: str,
    preloaded: Sequence[str],
    timeout_s: float = 50.0,
) -> int | None:
    """Run `work` in a process of its own and return its exit code, -9 if it was killed.

    The process is real; only the imports are shared, which would be most of its time: those of
    `preloaded`, at the first call. None if it did not end in time; it is killed then.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join(timeout_s)
    code: int | None = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    return code
