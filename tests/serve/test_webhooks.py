"""The webhook door: verified before it is read, answered only after the run is stored."""

from __future__ import annotations

import base64
import json

import httpx2
import pytest

from interlock.domain.errors import UnavailableError
from interlock.domain.run import RunState
from interlock.runtime.triggers import WEBHOOK_BYTES, signature_of
from interlock.store import runs
from interlock.testing.clock import START_US, ManualClock
from tests.serve.plane import Plane, body_of, error_of
from tests.serve.sample import REFERENCE, WORKFLOW, files

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NOW_S = START_US // 1_000_000
EVENT = json.dumps({"type": "created", "title": "vpn"}).encode()


@pytest.fixture
def door(plane: Plane) -> Plane:
    """An installation whose workflow listens to the webhook `desk`."""
    plane.apply(files())
    plane.interlock.secrets.set(REFERENCE, SECRET, by="tests")
    return plane


async def deliver(
    plane: Plane,
    body: bytes = EVENT,
    *,
    source: str = "desk",
    message_id: str = "msg_1",
    at_s: int = NOW_S,
    secret: str = SECRET,
    signature: str | None = None,
    content_type: str = "application/json",
) -> httpx2.Response:
    """Send one delivery, signed unless another signature is given."""
    right = signature_of(secret, message_id=message_id, timestamp=str(at_s), body=body)
    headers = {
        "Content-Type": content_type,
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(at_s),
        "Webhook-Signature": right if signature is None else signature,
    }
    return await plane.send("POST", f"/webhooks/{source}", content=body, headers=headers)


async def test_a_secret_is_rotated_while_its_sender_still_has_the_old_one(
    door: Plane, clock: ManualClock
) -> None:
    """Both are accepted until the overlap ends; then the old one is refused."""
    fresh = "whsec_" + base64.b64encode(b"f" * 32).decode()
    door.interlock.secrets.rotate(REFERENCE, fresh, by="tests", overlap_s=60)

    both = [
        (await deliver(door, message_id=f"m{n}", secret=secret)).status_code
        for n, secret in enumerate((SECRET, fresh))
    ]
    clock.advance(60)
    later = [
        (await deliver(door, message_id=f"l{n}", secret=secret, at_s=NOW_S + 60)).status_code
        for n, secret in enumerate((SECRET, fresh))
    ]

    assert ([202, 202], [401, 202]) == (both, later)


def stored(plane: Plane) -> list[tuple[str, str, RunState]]:
    """Return workflow, delivery id and state of every run."""
    with plane.interlock.db.reading() as tx:
        found = runs.list_runs(tx)
    return [(run.request.workflow, run.request.trigger.key, run.state) for run in found]


async def test_a_signed_delivery_is_stored_before_it_is_answered(door: Plane) -> None:
    """202 names the run, which is there."""
    answer = await deliver(door)

    assert 202 == answer.status_code
    assert [(WORKFLOW, "msg_1", RunState.QUEUED)] == stored(door)
    assert True is body_of(answer)["is_new"]


async def test_a_repeated_delivery_answers_the_first_run(door: Plane) -> None:
    """The sender may try as often as it likes."""
    first = body_of(await deliver(door))

    second = await deliver(door, at_s=NOW_S + 30)

    assert 202 == second.status_code
    assert {"run_id": first["run_id"], "is_new": False} == body_of(second)
    assert 1 == len(stored(door))


async def test_the_same_id_with_another_body_is_a_conflict(door: Plane) -> None:
    """One of the two is not what the sender meant; no second run starts."""
    await deliver(door)

    answer = await deliver(door, json.dumps({"type": "created", "title": "else"}).encode())

    assert (409, "trigger.body_changed") == error_of(answer)[:2]
    assert "`msg_1`" in error_of(answer)[2]
    assert 1 == len(stored(door))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": "whsec_" + "QUFB" * 8}, "no signature of this delivery holds"),
        ({"signature": "v1,AAAA"}, "no signature of this delivery holds"),
        ({"signature": "nonsense \u00e9"}, "no signature of this delivery holds"),
        ({"signature": ""}, "the header `webhook-signature` is missing or too long"),
        ({"at_s": NOW_S - 301}, "more than 5 minutes off"),
        ({"at_s": NOW_S + 301}, "more than 5 minutes off"),
        ({"message_id": "x" * 300}, "the header `webhook-id` is missing or too long"),
    ],
)
async def test_an_unproved_delivery_is_refused(
    door: Plane, changes: dict[str, str | int], message: str
) -> None:
    """401 with the reason, and nothing is stored."""
    answer = await deliver(door, **changes)  # type: ignore[arg-type]  # one of the parameters

    assert (401, "unauthenticated") == error_of(answer)[:2]
    assert message in error_of(answer)[2]
    assert [] == stored(door)


async def test_a_signature_is_over_the_body_that_was_sent(door: Plane) -> None:
    """What was changed on the way is not what was signed."""
    right = signature_of(SECRET, message_id="msg_1", timestamp=str(NOW_S), body=EVENT)

    answer = await deliver(door, EVENT.replace(b"vpn", b"VPN"), signature=right)

    assert 401 == answer.status_code
    assert [] == stored(door)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"not json", "json.invalid", "not JSON at line 1"),
        (b'{"type": "created", "type": "x"}', "json.invalid", "are the same key"),
        (b'{"type": "created", "title": NaN}', "json.invalid", "`NaN` is not a JSON number"),
        (b'{"type": "created", "title": 7}', "contract.violated", "the input of `look`"),
    ],
)
async def test_a_proved_delivery_of_nonsense_is_refused(
    door: Plane, body: bytes, code: str, message: str
) -> None:
    """400 says what is wrong with it; it will not get better by being sent again."""
    answer = await deliver(door, body)

    assert (400, code) == error_of(answer)[:2]
    assert message in error_of(answer)[2]
    assert [] == stored(door)


async def test_a_delivery_has_one_content_type(door: Plane) -> None:
    """Nothing is guessed."""
    answer = await deliver(door, content_type="text/plain")

    assert (400, "input.invalid", "a delivery is `application/json`; set the content type") == (
        error_of(answer)
    )


async def test_a_delivery_is_small(door: Plane) -> None:
    """One MiB, signed or not."""
    answer = await deliver(door, b'{"type": "' + b"x" * WEBHOOK_BYTES + b'"}')

    assert (400, "input.invalid") == error_of(answer)[:2]


async def test_nobody_listens_to_an_unknown_source(door: Plane) -> None:
    """404, whoever signed it."""
    answer = await deliver(door, source="other")

    assert (404, "not_found", "no workflow listens to the webhook `other`") == error_of(answer)


async def test_an_event_that_no_trigger_wants_is_accepted_and_starts_nothing(door: Plane) -> None:
    """The sender need not know what we listen to."""
    answer = await deliver(door, b'{"type": "closed"}')

    assert 202 == answer.status_code
    assert {"run_id": None, "is_new": False} == body_of(answer)
    assert [] == stored(door)


async def test_a_delivery_is_not_accepted_if_it_cannot_be_stored(
    door: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 asks the sender to try again; the next try starts the run."""

    def away(*_: object, **__: object) -> None:
        raise UnavailableError("the database is not available: disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(door.interlock.db, "run", away)
        refused = await deliver(door)
    accepted = await deliver(door)

    assert (503, "unavailable", "the database is not available: disk I/O error") == error_of(
        refused
    )
    assert 202 == accepted.status_code
    assert 1 == len(stored(door))


async def test_a_webhook_without_a_secret_in_store_is_not_open(plane: Plane) -> None:
    """A door whose lock is missing stays shut."""
    plane.apply(files())

    answer = await deliver(plane)

    assert (503, "unavailable") == error_of(answer)[:2]
    assert [] == stored(plane)


async def test_a_full_intake_is_answered_429(door: Plane) -> None:
    """The source is told when to send again; one that was heard before is heard again."""
    project = files()
    text = project["workflows/look.yaml"].replace("version: 1", "version: 2")
    project["workflows/look.yaml"] = f"{text}max_queued: 1\n"
    door.apply(project)
    first = body_of(await deliver(door))

    refused = await deliver(door, message_id="msg_2")
    again = body_of(await deliver(door))

    assert (429, "intake.full") == error_of(refused)[:2]
    assert "30" == refused.headers["retry-after"]
    assert first["run_id"] == again["run_id"]
