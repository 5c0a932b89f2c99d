"""Live pages: server-sent events that carry a fragment whenever what it shows has changed.

Each open page looks at a mark of `store.versions` four times a second while it listens, and costs
nothing when nobody does. The mark is the event's id: a page that connects again gets what it missed
as one fragment, and nothing if it missed nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.sse import ServerSentEvent, format_sse_event
from starlette.concurrency import run_in_threadpool

from interlock.domain.errors import InterlockError, UnauthenticatedError
from interlock.serve.auth import interlock_of, is_signed_in
from interlock.serve.status import status_of
from interlock.store.tx import Tx

LOOK_EVERY_S = 0.25
SIGNED_OUT = "signed-out"


def refused(error: InterlockError) -> Response:
    """Return the answer to who may not listen: a stream that says why and is over."""
    event = SIGNED_OUT if isinstance(error, UnauthenticatedError) else "refused"
    return Response(
        format_sse_event(event=event, data_str=""),
        status_of(error),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What a live page shows: the mark to watch, and how to render the fragment of now."""

    mark: Callable[[Tx], str]
    fragment: Callable[[Tx], str]


async def follow(request: Request, live: Live, *, after: str) -> AsyncIterator[ServerSentEvent]:
    """Yield a fragment each time the mark is not the one that was sent last.

    `after` is the mark of the page that listens; the browser's `Last-Event-ID` counts more. Ends
    with the event `signed-out` when the session ends, and without one if the store is away or the
    server is stopping, so that open pages do not hold it up.
    """
    db = interlock_of(request).db
    seen = request.headers.get("last-event-id") or after

    def look() -> tuple[bool, str, str | None]:
        with db.reading() as tx:
            if not is_signed_in(tx, request):
                return False, seen, None
            mark = live.mark(tx)
            return True, mark, None if mark == seen else live.fragment(tx)

    while not request.app.state.is_closing:
        try:
            may_see, mark, fragment = await run_in_threadpool(look)
        except InterlockError:
            return
        if not may_see:
            yield ServerSentEvent(event=SIGNED_OUT, raw_data="")
            return
        if fragment is not None:
            seen = mark
            yield ServerSentEvent(raw_data=fragment, id=mark)
        await asyncio.sleep(LOOK_EVERY_S)
