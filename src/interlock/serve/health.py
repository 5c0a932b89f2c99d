"""Health for machines: alive, and ready to accept work; nobody signs in for it."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Query, Request

from interlock.domain.canonical import JsonObject
from interlock.serve.auth import App
from interlock.serve.queues.loop import QueueLoop
from interlock.store import registry

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive(
    app: App, request: Request, nonce: Annotated[str | None, Query(max_length=100)] = None
) -> JsonObject:
    """Answer that the process serves requests, and which one; a `nonce` is signed.

    With what `address.json` holds, so that a terminal knows the server that left the file from
    another program at its port. `instance` is the process's name among the workers.
    """
    answer: JsonObject = {"status": "alive", "instance": app.executor_id}
    if nonce is None:
        return answer
    key: str = request.app.state.proof_key
    return answer | {"proof": hmac.digest(key.encode(), nonce.encode(), "sha256").hex()}


@router.get("/readyz")
def ready(app: App, request: Request) -> JsonObject:
    """Answer that the store can be read, and how many queues are; 503 if the store cannot.

    A broker that is away makes nothing else unready.
    """
    queues: QueueLoop = request.app.state.queues
    problems = [standing.problem is not None for standing in queues.standing()]
    counts: JsonObject = {"read": problems.count(False), "troubled": problems.count(True)}
    with app.db.reading() as tx:
        return {"status": "ready", "release": registry.live_number(tx), "queues": counts}
