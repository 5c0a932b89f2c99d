"""Messages of real brokers: one run for each, acknowledged once it is stored, nothing lost."""

from __future__ import annotations

import json
import sys
import threading

import pytest

from interlock.domain.canonical import MAX_DEPTH
from interlock.domain.errors import UnavailableError
from interlock.domain.run import RunState
from interlock.runtime import triggers
from interlock.runtime.triggers import WEBHOOK_BYTES
from interlock.serve import doctor
from interlock.serve.queues import consumer
from interlock.serve.queues.loop import QueueLoop
from interlock.testing.process import free_port
from tests.cli.terminal import until
from tests.serve.plane import Plane
from tests.serve.queues.conftest import Desk, queue_files

pytestmark = pytest.mark.timeout(120)


def event(title: str = "vpn", **more: object) -> bytes:
    """Return a message that the workflow takes."""
    return json.dumps({"type": "created", "title": title, **more}).encode()


def test_each_message_starts_one_run_and_is_settled(desk: Desk) -> None:
    """Messages that were there before the first reader count too."""
    desk.broker.send(desk.name, event("one"), message_id="a")
    desk.apply()
    desk.read()
    until(lambda: len(desk.runs()) == 1)
    desk.broker.send(desk.name, event("two"), message_id="b")

    until(lambda: len(desk.runs()) == 2)
    until(desk.settled)

    assert [RunState.QUEUED] * 2 == [state for _, state in desk.runs()]
    assert [] == desk.broker.dead(desk.dead)
    assert None is desk.standing().problem


def test_a_declared_key_makes_messages_the_same(desk: Desk) -> None:
    """The first run counts; another body under the same key is set aside."""
    desk.apply(dedupe="body:/id")
    other = event("else", id="A-1")
    desk.broker.send(desk.name, event(id="A-1"), event(id="A-1"), other, event(id=2))
    desk.read()

    until(lambda: len(desk.runs()) == 2)
    until(desk.settled)

    assert ["A-1", "2"] == [key for key, _ in desk.runs()]
    assert [(other, "trigger.body_changed")] == desk.broker.dead(desk.dead)


def test_what_can_start_no_run_is_set_aside_at_once(desk: Desk) -> None:
    """With the reason in its headers; what comes behind it is not held up."""
    bad = {
        b"not json \xff": "json.invalid",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1): "json.invalid",
        event(id=1, pad="x" * WEBHOOK_BYTES): "json.invalid",
        b'{"type": "created", "id": 1}': "contract.violated",
        event(): "input.invalid",
    }
    desk.apply(dedupe="body:/id")
    desk.broker.send(desk.name, *bad, event(id="good"))
    desk.read()

    until(lambda: len(desk.runs()) == 1)
    until(desk.settled)

    assert list(bad.items()) == desk.broker.dead(desk.dead)


def test_without_a_dead_letter_the_reason_is_kept(desk: Desk) -> None:
    """The message is settled, and the doctor can say so."""
    desk.apply(dead_letter=False)
    desk.read()
    desk.broker.send(desk.name, b"not json", message_id="a")

    until(lambda: bool(desk.loops[0].standing()) and desk.standing().set_aside == 1)
    until(desk.settled)

    assert "json.invalid" == desk.standing().last_code


def test_an_event_that_no_trigger_wants_is_settled(desk: Desk) -> None:
    """The sender need not know what we listen to."""
    desk.apply(dedupe="body:/id")
    desk.read()
    desk.broker.send(desk.name, b'{"type": "closed", "id": 1}', event(id=2))

    until(lambda: len(desk.runs()) == 1)
    until(desk.settled)

    assert [] == desk.broker.dead(desk.dead)


def test_a_full_intake_holds_messages_back(desk: Desk) -> None:
    """They stay the broker's, and come in as soon as there is room."""
    desk.apply(dedupe="body:/id", extra="max_queued: 2\n")
    desk.broker.send(desk.name, *(event(id=number) for number in range(5)))
    loop = desk.read()
    until(lambda: len(desk.runs()) == 2)
    until(lambda: desk.standing().problem is not None)
    held = desk.standing().problem
    desk.apply(dedupe="body:/id")

    until(lambda: len(desk.runs()) == 5)
    until(desk.settled)

    assert "intake.full" in str(held)
    assert None is loop.standing()[0].problem
    assert [] == desk.broker.dead(desk.dead)


def test_messages_wait_while_the_database_is_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is settled before its run is stored, none is set aside."""
    tried, desk_run = threading.Event(), desk.plane.interlock.db.run

    def away(*_: object, **__: object) -> None:
        tried.set()
        raise UnavailableError("the database is not available: disk I/O error")

    desk.apply(dedupe="body:/id")
    monkeypatch.setattr(desk.plane.interlock.db, "run", away)
    desk.broker.send(desk.name, event(id=1), event(id=2))
    desk.read()
    assert tried.wait(20)
    until(lambda: desk.standing().problem is not None)
    monkeypatch.setattr(desk.plane.interlock.db, "run", desk_run)

    until(lambda: len(desk.runs()) == 2)
    until(desk.settled)

    assert [] == desk.broker.dead(desk.dead)


def test_a_message_that_fails_five_times_is_set_aside(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks us does not hold up the others for ever."""
    accept = triggers.accept_message
    tries = []

    def break_on_poison(*given: object, body: bytes, **more: object) -> object:
        if b"poison" in body:
            tries.append(body)
            raise RuntimeError("a bug")
        return accept(*given, body=body, **more)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(consumer, "accept_message", break_on_poison)
    monkeypatch.setattr(consumer, "FIRST_PAUSE_S", 0.01)
    desk.apply(dedupe="body:/id")
    poison = event("poison", id="p")
    desk.broker.send(desk.name, poison, event(id="good"))
    desk.read()

    until(lambda: len(desk.runs()) == 1)
    until(desk.settled)

    assert [(poison, "internal")] == desk.broker.dead(desk.dead)
    assert consumer.FAILURES == len(tries)


def test_readers_share_the_messages(desk: Desk) -> None:
    """Each message is taken by one of them."""
    desk.apply(dedupe="body:/id")
    desk.read()
    second = desk.read()
    until(lambda: all(s.problem is None for loop in desk.loops for s in loop.standing()))
    desk.broker.send(desk.name, *(event(id=number) for number in range(40)))

    until(lambda: len(desk.runs()) == 40)
    until(desk.settled)

    taken = desk.standing().accepted, second.standing()[0].accepted
    assert 40 == sum(taken)
    assert min(taken) > 0


def test_the_live_release_is_followed(desk: Desk) -> None:
    """A queue that is applied is read, one that is dropped is not; no restart."""
    loop = desk.read()
    desk.apply(dedupe="body:/id")
    desk.broker.send(desk.name, event(id=1))
    until(lambda: len(desk.runs()) == 1)
    desk.drop()
    until(lambda: loop.standing() == ())
    desk.broker.send(desk.name, event(id=2))
    desk.apply(dedupe="body:/id", group="others")

    until(lambda: "2" in [key for key, _ in desk.runs()])

    assert ["others"] == [standing.queue.group for standing in loop.standing()]


def test_a_message_in_hand_is_handed_back_when_told_to_stop(desk: Desk) -> None:
    """Another reader gets it, without waiting where the broker allows it."""
    desk.apply(dedupe="body:/id", extra="max_queued: 1\n")
    desk.broker.send(desk.name, event(id=1), event(id=2))
    first = desk.read()
    until(lambda: bool(first.standing()) and first.standing()[0].problem is not None)

    first.stop()
    desk.apply(dedupe="body:/id")
    desk.read()

    until(lambda: len(desk.runs()) == 2)
    until(desk.settled)
    assert [] == desk.broker.dead(desk.dead)


@pytest.mark.parametrize("server", ["nats", "redis"], indirect=True)  # RabbitMQ takes 20 s
def test_a_broker_that_goes_away_is_waited_for(desk: Desk) -> None:
    """It is said, and what is sent when it is back is taken."""
    desk.apply(dedupe="body:/id")
    desk.broker.send(desk.name, event(id=1))
    desk.read()
    until(lambda: len(desk.runs()) == 1)

    desk.broker.stop()
    until(lambda: desk.standing().problem is not None)
    desk.broker.start()
    desk.broker.send(desk.name, event(id=2))

    until(lambda: len(desk.runs()) == 2)
    until(desk.settled)
    assert None is desk.standing().problem


@pytest.mark.parametrize("scheme", ["nats", "redis", "amqp"])
def test_a_broker_that_is_not_there_is_waited_for(plane: Plane, scheme: str) -> None:
    """The server starts all the same, and the doctor says what is missing."""
    url = f"{scheme}://127.0.0.1:{free_port()}"
    plane.apply(queue_files(f'{{url: "{url}", name: orders}}'))
    loop: QueueLoop = plane.app.state.queues
    loop.start()
    until(lambda: loop.standing() != () and loop.standing()[0].problem != "connecting")

    found = {check.name: check for check in doctor.examine(plane.interlock, loop)}["queues"]
    loop.stop()

    assert not found.is_ok
    assert found.message.startswith(f"`{url}/orders#interlock` ")
    assert found.message.endswith(", 0 messages accepted")


def test_a_secret_that_is_not_stored_is_said(plane: Plane) -> None:
    """And the broker is not asked without it."""
    secret = "secret://mq/dev/in"
    plane.apply(queue_files(f'{{url: "nats://127.0.0.1:1", name: orders, secret: "{secret}"}}'))
    loop: QueueLoop = plane.app.state.queues
    loop.start()

    until(lambda: loop.standing() != () and secret in str(loop.standing()[0].problem))
    loop.stop()


def test_a_library_that_is_not_installed_is_named(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who take no messages need not install it."""
    monkeypatch.setitem(sys.modules, "faststream.nats", None)
    monkeypatch.delitem(sys.modules, "interlock.serve.queues.nats", raising=False)
    plane.apply(queue_files('{url: "nats://127.0.0.1:1", name: orders}'))
    loop: QueueLoop = plane.app.state.queues
    loop.start()

    wanted = "`faststream.nats` is not installed; run `pip install 'interlock[queues]'`"
    until(lambda: loop.standing() != () and loop.standing()[0].problem == wanted)
    loop.stop()
