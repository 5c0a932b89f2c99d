"""Blocking code beside the event loop, each call on a thread that nothing else waits for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def run_apart(fn: Callable[[], T]) -> T:
    """Return what `fn` returns; if the caller gives up, `fn` is left behind.

    Its thread is of no pool, where a few calls that hang would keep all others waiting, and is not
    waited for when the process ends.
    """
    done: Future[T] = Future()
    work = partial(contextvars.copy_context().run, _finish, done, fn)
    threading.Thread(target=work, name="interlock-apart", daemon=True).start()
    return await asyncio.wrap_future(done)


def _finish(done: Future[T], fn: Callable[[], T]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        result = fn()
    except BaseException as error:  # noqa: BLE001  # raised where it is awaited
        done.set_exception(error)
    else:
        done.set_result(result)
