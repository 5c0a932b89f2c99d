"""Health for machines: alive, and ready to accept work; nobody signs in for it."""

from __future__ import annotations

from fastapi import APIRouter

from interlock.domain.canonical import JsonObject
from interlock.serve.auth import App
from interlock.store import registry

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> JsonObject:
    """Answer that the process serves requests."""
    return {"status": "alive"}


@router.get("/readyz")
def ready(app: App) -> JsonObject:
    """Answer that the store can be read; 503 if it cannot."""
    with app.db.reading() as tx:
        return {"status": "ready", "release": registry.live_number(tx)}
