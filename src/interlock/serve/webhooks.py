"""Webhooks in: verified before they are parsed, answered only after the run is stored."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError
from interlock.runtime.triggers import WEBHOOK_BYTES, accept_webhook
from interlock.serve.auth import App

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("/{source}", status_code=202)
async def receive(app: App, request: Request, source: str) -> JsonObject:
    """Take one signed delivery (Standard Webhooks); the same id again answers the first run.

    Nobody signs in here: the signature over id, timestamp and raw body is the proof.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InputError("a delivery is `application/json`; set the content type")
    body = await request.body()
    if len(body) > WEBHOOK_BYTES:
        raise InputError(f"a delivery has at most {WEBHOOK_BYTES} bytes, this one has {len(body)}")
    accepted = await run_in_threadpool(
        accept_webhook, app.intake, source, headers=dict(request.headers), body=body
    )
    return {"run_id": accepted.run_id, "is_new": accepted.is_new}
