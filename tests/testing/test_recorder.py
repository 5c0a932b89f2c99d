"""The recording tool server: guards of each effect class, faults, and a record that lasts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from interlock.domain.canonical import Json, digest
from interlock.domain.errors import UnavailableError
from interlock.testing.recorder import OVERSIZED_BYTES, Fault, Kind, Recorder

BODY: dict[str, Json] = {"title": "VPN", "reference": "eff-1"}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A running server with an empty record."""
    with Recorder(tmp_path) as server:
        yield server


def post(
    server: Recorder, path: str, body: Json = BODY, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Send a write; `path` may be a whole address."""
    url = path if path.startswith("http") else server.url + path
    return httpx2.post(url, json=body, headers=headers, timeout=30)


def linked(server: Recorder) -> str:
    """Return a one-time link."""
    link: str = post(server, "/conditional/links", {}).json()["link"]
    return link


def test_blind_applies_each_request(recorder: Recorder) -> None:
    """Nothing guards a blind write, and nothing can be looked up."""
    first, second = post(recorder, "/blind/items"), post(recorder, "/blind/items")

    assert [201, 201] == [first.status_code, second.status_code]
    assert {"id": "1", "version": 1, "reference": "eff-1", "body": BODY} == first.json()
    assert 2 == len(recorder.log().effects)
    assert 404 == httpx2.get(f"{recorder.url}/blind/items").status_code


def test_keyed_applies_one_key_once(recorder: Recorder) -> None:
    """The same key and body return the first answer, the same key and another body 409."""
    key = {"Idempotency-Key": "k1"}

    first = post(recorder, "/keyed/items", headers=key)
    second = post(recorder, "/keyed/items", headers=key)
    other = post(recorder, "/keyed/items", {"title": "else"}, headers=key)
    missing = post(recorder, "/keyed/items")

    assert first.json() == second.json()
    assert [201, 201, 409, 400] == [r.status_code for r in (first, second, other, missing)]
    assert ["k1"] == [effect.key for effect in recorder.log().effects]


def test_key_is_forgotten_after_its_time(tmp_path: Path) -> None:
    """A key that outlived its time applies again."""
    key = {"Idempotency-Key": "k1"}
    with Recorder(tmp_path, key_ttl_s=0.0) as recorder:
        identities = [post(recorder, "/keyed/items", headers=key).json()["id"] for _ in range(2)]

    assert ["1", "2"] == identities


def test_link_works_once(recorder: Recorder) -> None:
    """The second use of a link is refused, and so is an invented one."""
    link = linked(recorder)

    statuses = [post(recorder, url).status_code for url in (link, link, link + "0")]

    assert [201, 400, 400] == statuses
    assert 1 == len(recorder.log().effects)


def test_version_guards_a_change(recorder: Recorder) -> None:
    """A change needs the version that was read; an older one and none at all are refused."""
    identity = post(recorder, linked(recorder)).json()["id"]
    url = f"{recorder.url}/conditional/items/{identity}"
    tag = {"If-Match": httpx2.get(url).headers["ETag"]}

    answers = [
        httpx2.put(url, json={"title": "new"}, headers=tag),
        httpx2.put(url, json={"title": "newer"}, headers=tag),
        httpx2.put(url, json={"title": "newer"}),
        httpx2.put(f"{recorder.url}/conditional/items/99", json={}, headers=tag),
    ]

    assert [200, 412, 428, 404] == [answer.status_code for answer in answers]
    assert {"id": identity, "version": 2, "body": {"title": "new"}}.items() <= (
        httpx2.get(url).json().items()
    )


def test_probe_finds_a_write_by_its_reference(recorder: Recorder) -> None:
    """A probed write is found by the reference of its body, and by no other."""
    post(recorder, "/probed/items")

    found = httpx2.get(f"{recorder.url}/probed/items?reference=eff-1").json()["items"]
    other = httpx2.get(f"{recorder.url}/probed/items?reference=eff-2").json()["items"]

    assert ["1"] == [item["id"] for item in found]
    assert [] == other


def test_probe_finds_nothing_before_the_lag(tmp_path: Path) -> None:
    """A write stays invisible to searches for the lag."""
    with Recorder(tmp_path, lag_s=3600.0) as recorder:
        post(recorder, "/probed/items")
        found = httpx2.get(f"{recorder.url}/probed/items?reference=eff-1").json()["items"]

    assert [] == found


def test_read_finds_items_of_all_classes_and_changes_none(recorder: Recorder) -> None:
    """Reads are logged as requests and apply nothing."""
    post(recorder, "/blind/items")

    found = httpx2.get(f"{recorder.url}/read/items").json()["items"]
    one = httpx2.get(f"{recorder.url}/read/items/1")

    record = recorder.log()
    assert ([one.json()], 200) == (found, one.status_code)
    assert (3, 1) == (len(record.requests), len(record.effects))


def test_record_tells_what_was_received(recorder: Recorder) -> None:
    """A request is logged with key, reference and the digest of its body's canonical form."""
    httpx2.post(
        f"{recorder.url}/keyed/items",
        content='{ "reference": "eff-1",  "title": "VPN" }',
        headers={"Idempotency-Key": "k1"},
    )

    record = recorder.log()
    request, effect = record.requests[0], record.effects[0]
    assert ("POST", "/keyed/items", "k1", "eff-1") == (
        request.method,
        request.path,
        request.key,
        request.reference,
    )
    assert digest(BODY) == request.body_hash == effect.body_hash
    assert (request.id, "keyed", 1) == (effect.request_id, effect.tool, effect.item_id)
    assert request.at_us <= effect.at_us


@pytest.mark.parametrize("body", ["{", "[1]", "7", '{"a": 1, "a": 2}', ""])
def test_unreadable_body_is_logged_and_refused(recorder: Recorder, body: str) -> None:
    """Whatever came is in the record, and nothing was applied."""
    answer = httpx2.post(f"{recorder.url}/blind/items", content=body)

    record = recorder.log()
    assert 400 == answer.status_code
    assert [body or None] == [request.body for request in record.requests]
    assert () == record.effects


@pytest.mark.parametrize(
    ("kind", "status", "applied"),
    [("refuse", 503, 0), ("throttle", 429, 0), ("error", 500, 1), ("schema", 201, 1)],
)
def test_fault_answers_wrongly(recorder: Recorder, kind: Kind, status: int, applied: int) -> None:
    """Refusals come before anything is applied, lies after it; the next request is served."""
    recorder.arm(Fault(kind=kind))

    spoiled, normal = post(recorder, "/probed/items"), post(recorder, "/probed/items")

    assert (status, 201) == (spoiled.status_code, normal.status_code)
    assert "id" not in spoiled.json()
    assert applied + 1 == len(recorder.log().effects)
    if applied == 0:
        assert "1" == spoiled.headers["Retry-After"]


def test_fault_cuts_or_swells_the_answer(recorder: Recorder) -> None:
    """Half of the JSON, and an answer that no limit admits; both after the effect."""
    recorder.arm(Fault(kind="cut"))
    recorder.arm(Fault(kind="oversized"))

    cut, big = post(recorder, "/blind/items"), post(recorder, "/blind/items")

    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(cut.content)
    assert len(big.content) > OVERSIZED_BYTES
    assert 2 == len(recorder.log().effects)


def test_fault_resets_the_connection_after_the_effect(recorder: Recorder) -> None:
    """The caller sees a broken connection although all is done."""
    recorder.arm(Fault(kind="reset"))

    with pytest.raises(httpx2.NetworkError):
        post(recorder, "/blind/items")

    assert 1 == len(recorder.log().effects)


def test_fault_hangs_after_the_effect(recorder: Recorder) -> None:
    """The effect is there while the caller still waits; it gives up in vain."""
    recorder.arm(Fault(kind="hang"))

    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{recorder.url}/blind/items", json=BODY, timeout=0.2)

    assert 1 == len(recorder.wait_for(effects=1).effects)


def test_fault_delays_a_request_that_nobody_waits_for(recorder: Recorder) -> None:
    """A delayed request is applied although its caller has gone: bytes cannot be called back."""
    recorder.arm(Fault(kind="delay", seconds=0.5))

    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{recorder.url}/blind/items", json=BODY, timeout=0.1)
    before = recorder.log()
    after = recorder.wait_for(effects=1)

    assert (1, 0) == (len(before.requests), len(before.effects))
    assert 1 == len(after.effects)


def test_faults_wait_for_their_method_path_and_count(recorder: Recorder) -> None:
    """A fault meets so many of the requests that it describes, and no other."""
    recorder.arm(Fault(kind="error", method="GET", path="/probed", count=2))

    post(recorder, "/probed/items")
    urls = ["/read/items", "/probed/items", "/probed/items/1", "/probed/items"]
    statuses = [httpx2.get(recorder.url + url).status_code for url in urls]

    assert [200, 500, 500, 200] == statuses


def test_an_error_after_the_effect_may_claim_that_nothing_was_done(recorder: Recorder) -> None:
    """A server that did the work answers the status that was armed, 503 for instance."""
    recorder.arm(Fault(kind="error", status=503))

    answer = post(recorder, "/blind/items")

    assert 503 == answer.status_code
    assert 1 == len(recorder.log().effects)


def test_unknown_fault_is_refused(recorder: Recorder) -> None:
    """A fault of an unknown kind is not armed."""
    answer = post(recorder, "/faults", {"kind": "explode"})

    assert 400 == answer.status_code
    assert "kind" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/nothing/items"), ("GET", "/read/items/x"), ("POST", "/read/items")],
)
def test_unknown_path_is_not_found(recorder: Recorder, method: str, path: str) -> None:
    """There is nothing beside the documented addresses."""
    answer = httpx2.request(method, recorder.url + path, json=BODY if method == "POST" else None)

    assert 404 == answer.status_code


def test_record_outlives_a_kill(tmp_path: Path) -> None:
    """Requests, effects and used keys are there after SIGKILL and a start on the same port."""
    key = {"Idempotency-Key": "k1"}
    with Recorder(tmp_path) as recorder:
        first = post(recorder, "/keyed/items", headers=key)
        before = recorder.log()
        recorder.kill()

        recorder.start()
        after = recorder.log()
        again = post(recorder, "/keyed/items", headers=key)

        assert before == after
        assert first.json() == again.json()


def test_wait_returns_when_the_record_has_grown(recorder: Recorder) -> None:
    """A test can wait for the request of another process, without sleeping."""
    sender = threading.Thread(target=post, args=(recorder, "/blind/items"))

    sender.start()
    record = recorder.wait_for(requests=1, effects=1)
    sender.join()

    assert 1 == len(record.effects)


def test_wait_gives_up_after_its_time(recorder: Recorder) -> None:
    """The error says what the record has instead."""
    with pytest.raises(UnavailableError, match=r"0 requests and 0 effects after 0\.1 s"):
        recorder.wait_for(requests=1, seconds=0.1)
