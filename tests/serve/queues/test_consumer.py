"""Messages of real brokers: one run for each, acknowledged once it is stored, nothing lost."""

from __future__ import annotations

import json

import pytest

from interlock.domain.errors import UnavailableError
from interlock.domain.run import RunState
from tests.serve.queues.conftest import Desk, until

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
