"""How a call becomes an HTTP request and its reply an output: pure, so that every rule is testable.

Arguments can fill values only. They cannot leave their path segment, add a parameter or a header,
or change where the request goes.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from interlock.domain.canonical import Json, canonical
from interlock.domain.errors import InputError
from interlock.domain.pointer import fill, read
from interlock.domain.tool import Guard, HttpRequest
from interlock.tools.addresses import Target

FORM = "application/x-www-form-urlencoded"
DEFAULT_VERSION_HEADER = "If-Match"

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_NOT_OURS_TO_SET = re.compile(
    r"host|authorization|cookie2?|content-length|content-encoding|transfer-encoding|connection|"
    r"keep-alive|te|trailer|upgrade|expect|accept-encoding|forwarded|via|x-real-ip|x-http-method.*|"
    r"x-method-override|traceparent|tracestate|(proxy|x-forwarded|sec)-.*",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH = re.compile(r"(/[A-Za-z0-9@:!$&'()*+,;=._~{}-]+)+/?|/")
_OBTAIN = re.compile(r"(POST|GET) (/\S*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request ready to be sent; `target` is path and query, percent-encoded."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


def check_request(request: HttpRequest, guard: Guard | None = None) -> tuple[str, ...]:
    """Return what is wrong with a declared request, as sentences; none if it can be used."""
    problems = list(_path_problems(request.path))
    names = {match[1] for match in _PLACEHOLDER.finditer(request.path)}
    if names != request.path_args.keys():
        problems.append(f"`path_args` must name exactly what `{request.path}` has in braces")
    problems.extend(
        f"the header `{name}` cannot be set by a tool"
        for name in (*request.headers, request.key_header, request.version_header)
        if name is not None and not is_settable(name)
    )
    if request.method in {"GET", "HEAD"} and request.body is not None:
        problems.append(f"a `{request.method}` request has no body")
    if guard is not None and guard.kind == "one_time_link":
        match = _OBTAIN.fullmatch(guard.obtain or "")
        if match is None or guard.link is None:
            problems.append("a one-time link needs `obtain` like `POST /path` and `link`")
        else:
            problems.extend(_path_problems(match[2]))
    return tuple(problems)


def is_settable(header: str) -> bool:
    """Return whether a tool or server entry may set this header."""
    is_name = _HEADER_NAME.fullmatch(header) is not None
    return is_name and _NOT_OURS_TO_SET.fullmatch(header) is None


def build(
    request: HttpRequest,
    target: Target,
    *,
    documents: Mapping[str, Json],
    key: str,
    guard: Guard | None = None,
) -> Outgoing:
    """Fill a declared request; raises `InputError` for anything that cannot be sent as declared.

    `documents` are `in`, `effect` and `guard`; `key` is our idempotency key. With a one-time link
    in `guard` the request goes there instead of to its path.
    """
    problems = check_request(request, guard)
    if problems:
        raise InputError(problems[0])
    headers = {name: _header(name, fill(v, documents)) for name, v in request.headers.items()}
    if request.key_header is not None:
        headers[request.key_header] = key
    if guard is not None and guard.kind == "version":
        name = request.version_header or DEFAULT_VERSION_HEADER
        headers[name] = _header(name, fill(guard.version, documents))
    content = _content(request, documents, headers)
    if guard is not None and guard.kind == "one_time_link":
        path = _path_of_link(read(documents["guard"], "/link"), target)
    else:
        path = target.path + _path(request, documents)
    query = _pairs(fill(dict(request.query), documents, optional=True), what="query")
    return Outgoing(
        method=request.method,
        target=path + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
        headers=headers,
        content=content,
    )


def build_obtain(
    request: HttpRequest, guard: Guard, target: Target, *, documents: Mapping[str, Json]
) -> Outgoing:
    """Return the request that fetches a one-time link: the tool's headers, an empty JSON object."""
    match = _OBTAIN.fullmatch(guard.obtain or "")
    problems = check_request(request, guard)
    if match is None or problems:
        raise InputError(problems[0] if problems else "this guard obtains nothing")
    headers = {
        name: _header(name, fill(value, documents))
        for name, value in request.headers.items()
        if name.lower() != "content-type"
    }
    if match[1] == "GET":
        return Outgoing(method="GET", target=target.path + match[2], headers=headers)
    headers["Content-Type"] = "application/json"
    return Outgoing(method="POST", target=target.path + match[2], headers=headers, content=b"{}")


def link_of(guard: Guard, body: Json, target: Target) -> str:
    """Return the one-time link in a reply, as path; raises `InputError` if it leads elsewhere."""
    return _path_of_link(fill(guard.link, {"out": body}), target)


def result_of(request: HttpRequest, *, status: int, body: Json, etag: str | None) -> Json:
    """Map a reply to the tool's output: templates over `out:`, `status:` and `etag:`.

    Members whose pointer finds nothing are left out; raises `InputError` if nothing can be made.
    """
    if request.result is None:
        return body
    return fill(request.result, {"out": body, "status": status, "etag": etag}, optional=True)


def authorization(auth: str, secret: str | None) -> dict[str, str]:
    """Return the header that carries a credential; raises `InputError` without repeating it."""
    kind, _, name = auth.partition(":")
    if kind == "none":
        return {}
    if not secret:
        msg = f"the server wants `{kind}` credentials and the binding has none"
        raise InputError(msg)
    if kind == "basic" and ":" in secret:
        return {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"}
    if _HEADER_VALUE.fullmatch(secret) is not None:
        if kind == "bearer":
            return {"Authorization": f"Bearer {secret}"}
        if kind == "header" and is_settable(name):
            return {name: secret}
    msg = f"the credential cannot be sent as `{auth}`"
    raise InputError(msg)


def _path_problems(path: str) -> Iterator[str]:
    is_dotted = any(segment in {".", ".."} for segment in path.split("/"))
    if _PATH.fullmatch(path) is None or is_dotted or "//" in path:
        yield f"the path `{path}` must be plain segments and `{{names}}`, without dots or a query"


def _path(request: HttpRequest, documents: Mapping[str, Json]) -> str:
    values = {name: fill(at, documents) for name, at in request.path_args.items()}
    path = _PLACEHOLDER.sub(lambda match: _segment(match[1], values[match[1]]), request.path)
    if any(segment in {".", ".."} for segment in path.split("/")):
        msg = f"the path `{path}` has a dot segment"
        raise InputError(msg)
    return path


def _segment(name: str, value: Json) -> str:
    """Encode one value whole; a separator is refused, for some servers decode before they split."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        msg = f"`{name}` must be a text or an integer to stand in a path"
        raise InputError(msg)
    text = str(value)
    if not text or text in {".", ".."} or "/" in text or "\\" in text or not text.isprintable():
        msg = f"`{name}` cannot stand in a path: `{text[:60]!a}`"
        raise InputError(msg)
    return quote(text, safe="")


def _header(name: str, value: Json) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _HEADER_VALUE.fullmatch(text) is None:
        msg = f"the header `{name}` needs one line of plain text"
        raise InputError(msg)
    return text


def _content(
    request: HttpRequest, documents: Mapping[str, Json], headers: dict[str, str]
) -> bytes | None:
    if request.body is None:
        return None
    body = fill(request.body, documents, optional=True)
    given = next((name for name in headers if name.lower() == "content-type"), None)
    if given is not None and headers[given].partition(";")[0].strip().lower() == FORM:
        return urlencode(_pairs(body, what="body")).encode()
    if given is None:
        headers["Content-Type"] = "application/json"
    return canonical(body)


def _pairs(value: Json, *, what: str) -> list[tuple[str, str]]:
    """Flatten an object into parameters: lists repeat, null is left out, objects are refused."""
    if not isinstance(value, dict):
        msg = f"the {what} must be an object"
        raise InputError(msg)
    pairs: list[tuple[str, str]] = []
    for name, given in value.items():
        for item in given if isinstance(given, list) else [given]:
            if isinstance(item, dict | list):
                msg = f"`{name}` cannot stand in a {what}: it is nested"
                raise InputError(msg)
            if item is not None:
                pairs.append((name, item if isinstance(item, str) else canonical(item).decode()))
    return pairs


def _path_of_link(link: Json, target: Target) -> str:
    if isinstance(link, str):
        path = link.removeprefix(target.origin)
        default = target.origin.removesuffix({"http": ":80", "https": ":443"}[target.scheme])
        path = path.removeprefix(default) if path == link else path
        is_below = path.startswith(f"{target.path}/")
        if is_below and _PATH.fullmatch(path) and not list(_path_problems(path)):
            return path
    msg = f"the one-time link leads out of `{target.origin}{target.path}`"
    raise InputError(msg)
