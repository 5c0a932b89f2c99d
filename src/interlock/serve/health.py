"""Health for machines: alive, and ready to accept work; nobody signs in for it."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Query, Request

from interlock.domain.canonical import JsonObject
from interlock.serve.auth import App
from interlock.store import registry

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive(
    request: Request, nonce: Annotated[str | None, Query(max_length=100)] = None
) -> JsonObject:
    """Answer that the process serves requests; a `nonce` is signed with what `address.json` holds.

    So a terminal knows the server that left the file from another program at its port.
    """
    if nonce is None:
        return {"status": "alive"}
    key: str = request.app.state.proof_key
    return {"status": "alive", "proof": hmac.digest(key.encode(), nonce.encode(), "sha256").hex()}


@router.get("/readyz")
def ready(app: App) -> JsonObject:
    """Answer that the store can be read; 503 if it cannot."""
    with app.db.reading() as tx:
        return {"status": "ready", "release": registry.live_number(tx)}
