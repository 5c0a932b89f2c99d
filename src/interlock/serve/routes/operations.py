"""REST: what an operator asks: is all well, how much was done, why are there duplicates."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError
from interlock.domain.record import object_to_json, to_json
from interlock.observe import questions
from interlock.observe.observed import observed_since
from interlock.serve import doctor
from interlock.serve.auth import App
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import StrictRoute

router = APIRouter(tags=["operations"], route_class=StrictRoute)
Since = Annotated[str, Query(description="a time span as 90s, 15m, 1h or 7d")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@router.get("/questions/duplicates")
def why_duplicates(app: App, reader: Reader, since: Since = "1h") -> JsonObject:
    """Say why effects with one business key were repeated: triggers, runs, keys, approvers."""
    span_us = span_of(since)
    with app.db.reading() as tx:
        answer = questions.why_duplicates(tx, reader.tenant, tx.now_us - span_us)
    return object_to_json(answer)


@router.get("/questions/observed")
def what_was_observed(app: App, reader: Reader, since: Since = "7d") -> JsonObject:
    """Say which calls policies in observe mode would have held back, policy by policy."""
    span_us = span_of(since)
    with app.db.reading() as tx:
        since_us = tx.now_us - span_us
        told = observed_since(tx, reader.tenant, since_us)
    return {"since_us": since_us, "policies": to_json(told)}


@router.get("/summary")
def summary(app: App, reader: Reader, since: Since = "1d") -> JsonObject:
    """Count runs by state, tool calls, decisions by outcome, effects by state, and cost."""
    span_us = span_of(since)
    with app.db.reading() as tx:
        return object_to_json(questions.summary(tx, reader.tenant, tx.now_us - span_us))


@router.get("/openapi.json")
def openapi(request: Request, _reader: Reader) -> JsonObject:
    """Return the OpenAPI document of this REST interface."""
    app: FastAPI = request.app
    document: JsonObject = app.openapi()
    return document


@router.get("/doctor")
def show_doctor(app: App, request: Request, _reader: Reader) -> JsonObject:
    """Check database, files, release, models, secrets, queues, workers; say what to do."""
    return {"checks": to_json(doctor.examine(app, request.app.state.queues))}


def span_of(text: str) -> int:
    """Read a time span as microseconds; raises `InputError`.

    >>> span_of("15m")
    900000000
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if match is None:
        raise InputError(f"a time span is like 90s, 15m, 1h or 7d, got `{text[:20]}`")
    return int(match[1]) * _UNITS_S[match[2]] * 1_000_000
