"""Signing in with a one-time link, and signing out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from interlock.domain.principal import Principal, Role
from interlock.serve.auth import (
    SESSION_COOKIE,
    SESSION_LIFE_US,
    App,
    hash_secret,
    start_session,
)
from interlock.serve.console.page import (
    SIGN_IN,
    Form,
    PageRoute,
    check_origin,
    field,
    form_needs,
    page,
)
from interlock.store import keys

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Anyone = Annotated[Principal, Depends(form_needs(*Role))]


@router.get(SIGN_IN)
def show_sign_in(link: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Show a button that uses the link: a preview of the link must not use it up."""
    return page("sign_in.html", {"link": link})


@router.post(SIGN_IN)
def sign_in(request: Request, app: App, form: Form) -> Response:
    """Use the link up and start a session; the cookie is for this host only."""
    check_origin(request)
    secret = field(form, "link")
    session_id = app.db.run("session.start", lambda tx: start_session(tx, secret))
    response = RedirectResponse("/", 303)
    response.set_cookie(
        SESSION_COOKIE,
        session_id,
        max_age=SESSION_LIFE_US // 1_000_000,
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/sign-out")
def sign_out(request: Request, app: App, _who: Anyone) -> Response:
    """End this session everywhere it is used."""
    session_id = request.cookies.get(SESSION_COOKIE, "")
    app.db.run("session.end", lambda tx: keys.end_session(tx, hash_secret(session_id)))
    response = RedirectResponse(SIGN_IN, 303)
    response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="lax")
    return response
