from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.domain.canonical import Json
from interlock.domain.errors import (
    ContractError,
    DedupeConflictError,
    InputError,
    IntakeFullError,
    JsonError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from interlock.domain.ids import TenantId, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.run import RunState
from interlock.domain.workflow import Condition, Queue, Step, Trigger
from interlock.runtime.triggers import (
    Accepted,
    accept_message,
    accept_webhook,
    signature_of,
    start_manual,
)
from interlock.testing.clock import START_US
from tests.runtime.plane import FIND, MANUAL, WORKFLOW, Plane, open_plane, release, workflow

LOOK = Step(name="look", tool=FIND, args={"title": "input:/title"})
REFERENCE = "secret://desk/dev/hook"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
HOOK = Trigger(
    name="created",
    kind="webhook",
    source="desk",
    secret=REFERENCE,
    when=(Condition(at="body:/type", equals="created"),),
    input={"title": "body:/issue/title"},
)
NOW_S = START_US // 1_000_000
EVENT: Json = {"type": "created", "issue": {"title": "vpn"}}


def hooked(plane: Plane, *triggers: Trigger) -> None:
    """Apply a workflow that listens, with its secret stored."""
    plane.secrets[REFERENCE] = SECRET
    plane.apply(release(workflow(LOOK, triggers=triggers or (HOOK,))))


def deliver(
    plane: Plane,
    event: Json | bytes = EVENT,
    *,
    message_id: str = "msg_1",
    timestamp: str = str(NOW_S),
    signatures: str | None = None,
    source: str = "desk",
) -> Accepted:
    """Send one delivery, signed with the right secret unless other signatures are given."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    right = signature_of(SECRET, message_id=message_id, timestamp=timestamp, body=body)
    headers = {
        "Webhook-Id": message_id,
        "Webhook-Timestamp": timestamp,
        "Webhook-Signature": right if signatures is None else signatures,
    }
    return accept_webhook(plane.intake, source, headers=headers, body=body)


def test_a_signed_delivery_starts_one_run(tmp_path: Path) -> None:
    """The run is stored when the door answers, with the input that the trigger maps."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        accepted = deliver(plane)

        assert accepted.run_id is not None
        run = plane.get(accepted.run_id)
        assert (True, WORKFLOW, "created") == (
            accepted.is_new,
            accepted.workflow,
            accepted.trigger,
        )
        assert (RunState.QUEUED, {"title": "vpn"}, "msg_1") == (
            run.state,
            run.request.input,
            run.request.trigger.key,
        )
        assert START_US + 86_400_000_000 == run.request.deadline_us


def test_a_repeated_delivery_gets_the_first_run(tmp_path: Path) -> None:
    """The same id and body never start a second run, even if nothing would listen any more."""
    with open_plane(tmp_path) as plane:
        hooked(plane)
        first = deliver(plane)
        plane.apply(release(workflow(LOOK, triggers=(replace(HOOK, when=(NEVER,)),))))

        again = deliver(plane)

        assert (first.run_id, False) == (again.run_id, again.is_new)


NEVER = Condition(at="body:/type", equals="never")


def test_the_same_id_with_another_body_is_refused(tmp_path: Path) -> None:
    """Somebody is confused or lies: no run is started and the first stays as it is."""
    with open_plane(tmp_path) as plane:
        hooked(plane)
        deliver(plane)

        with pytest.raises(DedupeConflictError):
            deliver(plane, {"type": "created", "issue": {"title": "mail"}})


def test_one_of_several_signatures_is_enough(tmp_path: Path) -> None:
    """While a secret is replaced, senders sign with both."""
    body = json.dumps(EVENT).encode()
    right = signature_of(SECRET, message_id="msg_1", timestamp=str(NOW_S), body=body)
    with open_plane(tmp_path) as plane:
        hooked(plane)

        assert deliver(plane, signatures=f"v1,AAAA v2,other {right}").is_new


@pytest.mark.parametrize("signatures", ["v1,AAAA", "AAAA", "v1,\u00e9", " ", ""])
def test_a_delivery_without_a_valid_signature_is_refused(tmp_path: Path, signatures: str) -> None:
    """Nothing is parsed or stored before a signature holds."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnauthenticatedError):
            deliver(plane, b"{not even json", signatures=signatures)


@pytest.mark.parametrize(
    "part", [{"message_id": "msg_2"}, {"timestamp": str(NOW_S + 1)}, {"event": {"type": "x"}}]
)
def test_a_signature_covers_id_time_and_body(tmp_path: Path, part: dict[str, Json]) -> None:
    """Changing any of the three breaks the signature."""
    body = json.dumps(EVENT).encode()
    right = signature_of(SECRET, message_id="msg_1", timestamp=str(NOW_S), body=body)
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnauthenticatedError, match="no signature"):
            deliver(plane, signatures=right, **part)  # type: ignore[arg-type]  # by their keys


@pytest.mark.parametrize("off_s", [-301, 301])
def test_an_old_or_early_delivery_is_refused(tmp_path: Path, off_s: int) -> None:
    """A recorded delivery cannot be played back later."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnauthenticatedError, match="5 minutes off"):
            deliver(plane, timestamp=str(NOW_S + off_s))


@pytest.mark.parametrize("off_s", [-299, 299])
def test_clocks_may_differ_a_little(tmp_path: Path, off_s: int) -> None:
    """Five minutes either way are accepted."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        assert deliver(plane, timestamp=str(NOW_S + off_s)).is_new


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "\u0661", "9" * 16])
def test_a_time_that_is_no_number_is_refused(tmp_path: Path, timestamp: str) -> None:
    """The header is a count of seconds, nothing else."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnauthenticatedError, match="webhook-timestamp"):
            deliver(plane, timestamp=timestamp)


@pytest.mark.parametrize("message_id", ["", "m" * 257])
def test_an_id_that_cannot_be_kept_is_refused(tmp_path: Path, message_id: str) -> None:
    """The id is what deduplicates, so there must be one."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnauthenticatedError, match="webhook-id"):
            deliver(plane, message_id=message_id)


def test_a_body_that_is_not_strict_json_is_refused(tmp_path: Path) -> None:
    """A duplicate key would let two readers see two events."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(JsonError):
            deliver(plane, b'{"type": "created", "type": "deleted"}')


def test_an_event_that_no_trigger_wants_starts_nothing(tmp_path: Path) -> None:
    """It is acknowledged, and there is no run."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        assert Accepted(run_id=None) == deliver(plane, {"type": "deleted"})


def test_an_unknown_source_is_not_found(tmp_path: Path) -> None:
    """The door exists only if a live workflow listens."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(NotFoundError):
            deliver(plane, source="nobody")


def test_a_trigger_with_another_secret_does_not_see_the_event(tmp_path: Path) -> None:
    """Who may send to one trigger may not send to another of the same source."""
    other = replace(HOOK, name="other", secret="secret://desk/dev/other", when=())
    with open_plane(tmp_path) as plane:
        hooked(plane, other, HOOK)
        plane.secrets["secret://desk/dev/other"] = SECRET[::-1]

        assert "created" == deliver(plane).trigger


def test_an_event_is_routed_to_the_first_trigger_that_matches(tmp_path: Path) -> None:
    """One event starts one run, by the order of workflow and trigger."""
    with open_plane(tmp_path) as plane:
        hooked(plane, replace(HOOK, name="never", when=(NEVER,)), HOOK, replace(HOOK, name="last"))

        assert "created" == deliver(plane).trigger


def test_input_that_breaks_the_contract_starts_nothing(tmp_path: Path) -> None:
    """The error says what is missing, and a mended delivery with the same id is accepted."""
    closed: Json = {"type": "object", "required": ["title"]}
    with open_plane(tmp_path) as plane:
        plane.secrets[REFERENCE] = SECRET
        plane.apply(release(workflow(LOOK, triggers=(HOOK,), input_schema=closed)))
        with pytest.raises(ContractError, match="title"):
            deliver(plane, {"type": "created", "issue": {}})

        assert deliver(plane).is_new


def test_a_secret_that_is_not_base64_is_told(tmp_path: Path) -> None:
    """The operator hears of it, the secret is not repeated."""
    with open_plane(tmp_path) as plane:
        hooked(plane)
        plane.secrets[REFERENCE] = "whsec_!!"

        with pytest.raises(InputError, match="not base64") as refused:
            deliver(plane)

    assert "!!" not in refused.value.message


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_" + "QUFB" * 7, "x" * 23])
def test_a_webhook_needs_a_long_secret(tmp_path: Path, secret: str) -> None:
    """Whoever guesses a key of no or few bytes could sign: nothing is accepted with one."""
    with open_plane(tmp_path) as plane:
        hooked(plane)
        plane.secrets[REFERENCE] = secret

        with pytest.raises(InputError, match="shorter than 24 bytes; make a new one"):
            deliver(plane)


def manual(plane: Plane, *, key: str | None = None, **changes: str) -> Accepted:
    """Start a run by hand."""
    return start_manual(
        plane.intake,
        WorkflowName(changes.get("workflow", WORKFLOW)),
        environment="prod" if changes.get("environment") == "prod" else "dev",
        value={"title": changes.get("title", "vpn")},
        by=changes.get("by", "ann"),
        tenant=TenantId(changes.get("tenant", DEFAULT_TENANT)),
        key=key,
    )


def test_a_start_by_hand_acts_for_its_person(tmp_path: Path) -> None:
    """Policy and approvals know who asked."""
    with open_plane(tmp_path) as plane:
        hooked(plane, MANUAL)

        accepted = manual(plane)

        assert accepted.run_id is not None
        assert ("ann", "manual") == (
            plane.get(accepted.run_id).request.user,
            plane.get(accepted.run_id).request.trigger.kind,
        )


def test_one_key_of_one_person_is_one_run(tmp_path: Path) -> None:
    """Another person with the same key, or no key, starts another run."""
    with open_plane(tmp_path) as plane:
        hooked(plane, MANUAL)

        first, same = manual(plane, key="k"), manual(plane, key="k")
        others = [manual(plane, key="k", by="bob"), manual(plane), manual(plane)]

        assert (first.run_id, False) == (same.run_id, same.is_new)
        assert 4 == len({first.run_id, *(other.run_id for other in others)})


def test_one_key_with_other_input_is_refused(tmp_path: Path) -> None:
    """A retry repeats what it retries."""
    with open_plane(tmp_path) as plane:
        hooked(plane, MANUAL)
        manual(plane, key="k")

        with pytest.raises(DedupeConflictError):
            manual(plane, key="k", title="mail")


@pytest.mark.parametrize("what", [{"workflow": "nothing"}, {"tenant": "globex"}])
def test_what_a_tenant_does_not_have_is_not_found(tmp_path: Path, what: dict[str, str]) -> None:
    """An unknown workflow and another tenant's look the same."""
    with open_plane(tmp_path) as plane:
        hooked(plane, MANUAL)

        with pytest.raises(NotFoundError, match="there is no workflow"):
            manual(plane, **what)


def test_a_workflow_is_started_by_hand_only_where_it_says_so(tmp_path: Path) -> None:
    """The error says what to declare."""
    with open_plane(tmp_path) as plane:
        hooked(plane, MANUAL)

        with pytest.raises(InputError, match="no manual trigger in `prod`; declare one"):
            manual(plane, environment="prod")


def test_a_full_intake_refuses_what_is_new(tmp_path: Path) -> None:
    """Deliveries and starts by hand are told when to come back; what was accepted stays so."""
    with open_plane(tmp_path) as plane:
        plane.secrets[REFERENCE] = SECRET
        plane.apply(release(workflow(LOOK, triggers=(HOOK, MANUAL), max_queued=1)))
        first = deliver(plane)

        with pytest.raises(IntakeFullError, match="1 runs of `triage` wait to begin") as refused:
            deliver(plane, message_id="msg_2")
        with pytest.raises(IntakeFullError):
            plane.queue()
        again = deliver(plane)
        plane.engine.run_until_idle()

        assert (30, first.run_id) == (refused.value.retry_after_s, again.run_id)
        assert deliver(plane, message_id="msg_2").is_new


ORDERS = Queue(url="nats://127.0.0.1:4222", name="orders", dedupe="body:/id")


def listening(queue: Queue, name: str = "taken", **changes: object) -> Trigger:
    """Return a trigger of a queue with the webhook's conditions and input."""
    trigger = replace(HOOK, name=name, kind="queue", source=queue.source, secret=None, queue=queue)
    return replace(trigger, **changes)  # type: ignore[arg-type]  # fields of a trigger


def send(plane: Plane, queue: Queue, event: Json, *, message_id: str | None = "m1") -> Accepted:
    """Hand one message in as a reader does."""
    return accept_message(
        plane.intake, queue, message_id=message_id, body=json.dumps(event).encode()
    )


def message(**more: Json) -> Json:
    """Return an event as a message."""
    return {"type": "created", "issue": {"title": "vpn"}, **more}


def test_a_message_starts_one_run_for_its_declared_key(tmp_path: Path) -> None:
    """Whatever id the broker gave it; in another body the same key is refused."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, triggers=(listening(ORDERS),))))

        first = send(plane, ORDERS, message(id=7), message_id="m1")
        again = send(plane, ORDERS, message(id=7), message_id="m2")
        with pytest.raises(DedupeConflictError):
            send(plane, ORDERS, message(id=7, more=1), message_id="m1")

        assert first.run_id is not None
        assert (first.run_id, True, False) == (again.run_id, first.is_new, again.is_new)
        ref = plane.get(first.run_id).request.trigger
        assert ("queue", "nats://127.0.0.1:4222/orders#interlock", "7") == (
            ref.kind,
            ref.source,
            ref.key,
        )


def test_a_message_without_a_declared_key_has_the_brokers(tmp_path: Path) -> None:
    """One that has none either cannot be told from another, so it is refused."""
    queue = replace(ORDERS, dedupe=None)
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, triggers=(listening(queue),))))

        first = send(plane, queue, message())
        again = send(plane, queue, message())

        assert (first.run_id, False) == (again.run_id, again.is_new)
        with pytest.raises(InputError, match="the message has no id"):
            send(plane, queue, message(), message_id=None)


@pytest.mark.parametrize("key", [None, True, 1.5, "", "x" * 257, {}, ["a"]])
def test_a_key_is_a_short_text_or_a_whole_number(tmp_path: Path, key: Json) -> None:
    """What compares in more than one way is no key."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, triggers=(listening(ORDERS),))))

        with pytest.raises(InputError, match="`body:/id` is no key"):
            send(plane, ORDERS, message(id=key))


def test_triggers_of_one_queue_share_its_messages_by_their_conditions(tmp_path: Path) -> None:
    """The first whose conditions hold gets it; one that nobody wants starts nothing."""
    closed = listening(ORDERS, "closed", when=(Condition(at="body:/type", equals="closed"),))
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, triggers=(listening(ORDERS), closed))))

        taken = [
            send(plane, ORDERS, message(id=kind, type=kind)).trigger
            for kind in ("created", "closed", "moved")
        ]

        assert ["taken", "closed", None] == taken


def test_a_message_of_a_queue_that_was_dropped_waits(tmp_path: Path) -> None:
    """Its reader is about to stop; the message stays the broker's."""
    with open_plane(tmp_path) as plane:
        hooked(plane)

        with pytest.raises(UnavailableError, match="no workflow takes from"):
            send(plane, ORDERS, message(id=1))
