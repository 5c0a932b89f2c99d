"""HTTP requests from templates: arguments fill values and nothing else."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.tool import Guard, HttpRequest
from interlock.tools.addresses import target_of
from interlock.tools.requests.http import (
    Outgoing,
    authorization,
    build,
    build_obtain,
    check_request,
    link_of,
    result_of,
)

TARGET = target_of("http://127.0.0.1:8080/tracker", "dev")
SHOW = HttpRequest(method="GET", path="/issue/{id}", path_args={"id": "in:/id"})
LINK = Guard(kind="one_time_link", refused=(400,), obtain="POST /issue/@poe", link="out:/link")


def _build(
    request: HttpRequest,
    arguments: JsonObject,
    *,
    guard: Guard | None = None,
    values: JsonObject | None = None,
) -> Outgoing:
    documents: dict[str, Json] = {
        "in": arguments,
        "effect": {"id": "e1", "key": "k1"},
        "guard": values or {},
    }
    return build(request, TARGET, documents=documents, key="k1", guard=guard)


def test_templates_become_path_query_headers_and_canonical_body() -> None:
    """All parts of a request come from the declaration; what finds nothing is left out."""
    request = HttpRequest(
        method="POST",
        path="/issue/{id}/note",
        path_args={"id": "in:/id"},
        query={"@fields": "title,status", "tag": "in:/tags", "none": "in:/absent", "all": True},
        headers={"X-Requested-With": "interlock", "X-Effect": "effect:/id"},
        body={"b": "in:/text", "a": {"ref": "effect:/key"}, "c": "in:/absent"},
        key_header="Idempotency-Key",
    )

    built = _build(request, {"id": 7, "text": "ü", "tags": ["x y", "z&w"]})

    expected = Outgoing(
        method="POST",
        target="/tracker/issue/7/note?%40fields=title%2Cstatus&tag=x%20y&tag=z%26w&all=true",
        headers={
            "X-Requested-With": "interlock",
            "X-Effect": "e1",
            "Idempotency-Key": "k1",
            "Content-Type": "application/json",
        },
        content='{"a":{"ref":"k1"},"b":"ü"}'.encode(),
    )
    assert expected == built


def test_form_body_is_declared_by_its_content_type() -> None:
    """A fixed form content type makes the body a form."""
    request = HttpRequest(
        method="POST",
        path="/login",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body={"name": "in:/name", "n": 1},
    )

    assert _build(request, {"name": "a&b=c"}).content == b"name=a%26b%3Dc&n=1"


@pytest.mark.parametrize(
    "value",
    ["..", ".", "", "a/b", "../b", "a\\b", "a\r\nHost: x", "a\x00", None, True, 1.5, ["a"], {}],
)
def test_value_that_could_leave_its_segment_is_refused(value: Json) -> None:
    """Separators, dots and control characters never become part of a path."""
    with pytest.raises(InputError):
        _build(SHOW, {"id": value})


@given(st.text(min_size=1, max_size=20))
def test_text_stays_in_its_segment(text: str) -> None:
    """Whatever is accepted decodes to exactly itself, in one segment, without a query."""
    try:
        built = _build(SHOW, {"id": text})
    except InputError:
        return
    parts = urlsplit(f"http://x{built.target}")
    assert ["", "tracker", "issue", text] == [unquote(part) for part in parts.path.split("/")]
    assert ("", "") == (parts.query, parts.fragment)


@given(st.text(max_size=20), st.text(max_size=20))
def test_text_adds_no_parameter(one: str, two: str) -> None:
    """A query has as many parameters as were declared."""
    request = HttpRequest(method="GET", path="/issue", query={"a": "in:/one", "b": "in:/two"})

    built = _build(request, {"one": one, "two": two})

    assert ["a", "b"] == [part.partition("=")[0] for part in built.target.split("?")[1].split("&")]


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "\x00", "ü", "", " a", {}, None])
def test_value_that_could_add_a_header_is_refused(value: Json) -> None:
    """A header takes one line of plain text."""
    request = HttpRequest(method="GET", path="/issue", headers={"X-Name": "in:/name"})

    with pytest.raises(InputError):
        _build(request, {"name": value})


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "authorization",
        "Cookie",
        "Content-Length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "Forwarded",
        "Proxy-Authorization",
        "X-HTTP-Method-Override",
        "traceparent",
        "Bad Name",
        "X:y",
    ],
)
def test_header_that_is_not_a_tools_to_set_is_refused(name: str) -> None:
    """Routing, credentials and framing are ours."""
    request = HttpRequest(method="GET", path="/issue", headers={name: "x"})

    assert check_request(request)
    with pytest.raises(InputError):
        _build(request, {})


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest(method="GET", path="/a/../b"),
        HttpRequest(method="GET", path="//evil.org/x"),
        HttpRequest(method="GET", path="/a?b=c"),
        HttpRequest(method="GET", path="/a%2e%2e/b"),
        HttpRequest(method="GET", path="a"),
        HttpRequest(method="GET", path="/a/{id}"),
        HttpRequest(method="GET", path="/a", path_args={"id": "in:/id"}),
        HttpRequest(method="GET", path="/a", body={}),
    ],
)
def test_declaration_that_cannot_be_used_is_refused(request_: HttpRequest) -> None:
    """Mistakes are found when a manifest is loaded."""
    assert check_request(request_)


def test_version_goes_into_if_match() -> None:
    """A version guard sends the version that the arguments name, quotes and all."""
    request = HttpRequest(method="PUT", path="/issue/1", body={"status": "open"})
    guard = Guard(kind="version", refused=(412,), version="in:/etag")

    built = _build(request, {"etag": '"05077"'}, guard=guard)

    assert built.headers["If-Match"] == '"05077"'


def test_version_that_is_missing_is_not_sent() -> None:
    """Without its version the write does not leave."""
    request = HttpRequest(method="PUT", path="/issue/1", body={"status": "open"})
    guard = Guard(kind="version", refused=(412,), version="in:/etag")

    with pytest.raises(InputError):
        _build(request, {}, guard=guard)


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:8080/tracker/issue/@poe/K-1_", "/tracker/issue/@poe/K-1_"]
)
def test_one_time_link_takes_the_place_of_the_path(link: str) -> None:
    """The request goes to the link that the intent stored."""
    request = HttpRequest(method="POST", path="/issue", body={"title": "in:/title"})

    built = _build(request, {"title": "VPN"}, guard=LINK, values={"link": link})

    assert built.target == "/tracker/issue/@poe/K-1_"


@pytest.mark.parametrize(
    "link",
    [
        "http://evil.org/tracker/issue/@poe/K",
        "http://127.0.0.1:8081/tracker/issue/@poe/K",
        "http://127.0.0.1:8080@evil.org/tracker/x",
        "//evil.org/tracker/x",
        "/other/issue/@poe/K",
        "/tracker/../admin",
        "/tracker/a?b=c",
        "/tracker/%2e%2e/admin",
        "",
        None,
        7,
    ],
)
def test_one_time_link_cannot_lead_elsewhere(link: Json) -> None:
    """An upstream cannot send our request and credentials to another place."""
    with pytest.raises(InputError):
        link_of(LINK, {"link": link}, TARGET)


def test_link_is_obtained_with_the_tools_own_headers() -> None:
    """The request for a link is an empty JSON object with the declared headers."""
    request = HttpRequest(method="POST", path="/issue", headers={"X-Requested-With": "i"}, body={})

    built = build_obtain(request, LINK, TARGET, documents={})

    headers = {"X-Requested-With": "i", "Content-Type": "application/json"}
    assert built == Outgoing(
        method="POST", target="/tracker/issue/@poe", headers=headers, content=b"{}"
    )


def test_result_is_mapped_and_absent_members_left_out() -> None:
    """An output is made of body, status and ETag; without a template it is the body."""
    request = HttpRequest(
        method="GET",
        path="/x",
        result={"id": "out:/data/id", "etag": "etag:", "status": "status:", "no": "out:/none"},
    )

    made = result_of(request, status=201, body={"data": {"id": "7"}}, etag='"1"')

    assert {"id": "7", "etag": '"1"', "status": 201} == made
    assert [1] == result_of(SHOW, status=200, body=[1], etag=None)


@pytest.mark.parametrize(
    ("auth", "secret", "expected"),
    [
        ("none", None, {}),
        ("none", "unused", {}),
        ("basic", "bot:pä", {"Authorization": "Basic Ym90OnDDpA=="}),
        ("bearer", "t0ken", {"Authorization": "Bearer t0ken"}),
        ("header:X-Api-Key", "t0ken", {"X-Api-Key": "t0ken"}),
    ],
)
def test_credential_is_sent_as_declared(
    auth: str, secret: str | None, expected: dict[str, str]
) -> None:
    """Basic, bearer, a named header, or none."""
    assert expected == authorization(auth, secret)


@pytest.mark.parametrize(
    ("auth", "secret"),
    [
        ("basic", "no-colon-here"),
        ("bearer", "two words\nlines"),
        ("bearer", None),
        ("header:Host", "evil.org"),
        ("digest", "a:b"),
    ],
)
def test_credential_that_cannot_be_sent_is_not_repeated(auth: str, secret: str | None) -> None:
    """The message about a bad credential does not hold it."""
    with pytest.raises(InputError) as caught:
        authorization(auth, secret)

    assert secret is None or secret not in caught.value.message
