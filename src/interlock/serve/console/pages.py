"""The console: server-rendered pages over the same functions as REST, and what they load."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import RedirectResponse

from interlock.domain.principal import Principal
from interlock.serve.auth import needs
from interlock.serve.console import approval_pages, run_pages, session
from interlock.serve.console.page import ASSETS, PageRoute
from interlock.serve.routes.runs import READERS

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
def home(_reader: Annotated[Principal, Depends(needs(*READERS))]) -> RedirectResponse:
    """Lead to the runs."""
    return RedirectResponse("/runs", 303)


def install(app: FastAPI) -> None:
    """Add the console to an application whose state holds the `Interlock`."""
    for pages in (router, session.router, run_pages.router, approval_pages.router):
        app.include_router(pages)
    ASSETS.install(app)
