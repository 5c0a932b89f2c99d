"""What all pages share: rendering, the headers that fence them in, forms, errors for people."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from interlock.domain.approval import in_words, team_of
from interlock.domain.errors import (
    ForbiddenError,
    InputError,
    InterlockError,
    UnauthenticatedError,
)
from interlock.domain.principal import Principal, Role
from interlock.domain.text import visible
from interlock.serve.auth import Caller, SignedIn, check_csrf
from interlock.serve.console import words
from interlock.serve.console.assets import Assets
from interlock.serve.status import status_of
from interlock.serve.stream import refused

SIGN_IN: Final = "/sign-in"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 20
_CSP: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types htmx"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

ASSETS: Final = Assets()


def _shown(value: object) -> object:
    """Spell out invisible and direction characters in every text that a template prints."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset": ASSETS.url, "status": words.status, "risk": words.risk}
    environment.globals |= {"in_words": in_words, "team_of": team_of}
    environment.filters |= {
        "about": words.about,
        "awaited": words.awaited,
        "duration": words.duration,
        "moment": words.moment,
        "money": words.money,
        "short": words.short,
        "text": visible,
    }
    return environment


_ENVIRONMENT: Final = _environment()


def render(template: str, values: Mapping[str, object]) -> str:
    """Render a template or fragment."""
    return _ENVIRONMENT.get_template(template).render(values)


def page(
    template: str,
    values: Mapping[str, object],
    *,
    caller: Caller | None = None,
    status_code: int = 200,
) -> HTMLResponse:
    """Render a whole page; `caller` is who is signed in, None on pages for everyone."""
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(
        render(template, {**values, "nonce": nonce, "caller": caller}),
        status_code,
        headers=_HEADERS | {"Content-Security-Policy": _CSP.format(nonce=nonce)},
    )


class PageRoute(APIRoute):
    """A route of the console: its errors are pages, and who is not signed in is led to sign in.

    A stream that cannot begin ends at once, with the event that it would have ended with.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler with answers for people."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except InterlockError as error:
                if self.is_sse_stream:
                    return refused(error)
                if not isinstance(error, UnauthenticatedError) or request.url.path == SIGN_IN:
                    return _error_page(error)
                return RedirectResponse(SIGN_IN, 303, headers=_HEADERS)
            except RequestValidationError:
                return _error_page(InputError("the address of this page is not one that we know"))

        return answer


def _error_page(error: InterlockError) -> Response:
    return page("error.html", {"error": error}, status_code=status_of(error))


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; raises `InputError` for any other body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != _FORM:
        raise InputError(f"a form is sent as `{_FORM}`")
    try:
        fields = parse_qsl(
            (await request.body()).decode(),
            keep_blank_values=True,
            max_num_fields=_MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise InputError("the form cannot be read") from error
    if len({name for name, _ in fields}) != len(fields):
        raise InputError("the form has a field twice")
    if any("\0" in value for _, value in fields):
        raise InputError("the form holds a null character")
    return dict(fields)


Form = Annotated[dict[str, str], Depends(read_form)]


def check_origin(request: Request) -> None:
    """Raise `ForbiddenError` unless the browser says that the form is one of our own pages.

    Pages that send no referrer post with the origin `null`, so `Sec-Fetch-Site` counts first; a
    page cannot forge either.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        is_own = site == "same-origin"
    else:
        origin = request.headers.get("origin", "")
        is_own = origin.partition("://")[2] == request.headers.get("host")
    if not is_own:
        raise ForbiddenError("the form was sent from another site")


def form_needs(*roles: Role) -> Callable[[Request, Caller, dict[str, str]], Principal]:
    """Return the dependency of a posted form that any of these roles may send."""

    def check(request: Request, caller: SignedIn, form: Form) -> Principal:
        check_origin(request)
        check_csrf(caller, form.get("csrf", ""))
        if not caller.principal.roles & set(roles):
            wanted = ", ".join(f"`{role}`" for role in roles)
            raise ForbiddenError(f"`{caller.principal.name}` needs one of the roles {wanted}")
        return caller.principal

    # The route audit reads this mark: every route states who may call it.
    check.roles = roles  # type: ignore[attr-defined]  # functions take attributes
    return check


def field(form: dict[str, str], name: str) -> str:
    """Return a field without spaces around it, empty if it is absent."""
    return form.get(name, "").strip()
