from __future__ import annotations

import pytest

from tests.cli.terminal import until
from tests.serve.queues.brokers import MOST_BYTES
from tests.serve.queues.conftest import Desk


@pytest.mark.parametrize("server", ["nats"], indirect=True)
def test_a_message_that_fills_a_frame_is_set_aside_without_its_end(desk: Desk) -> None:
    """The reason needs room too, and a message that nobody can put aside would come for ever."""
    desk.apply()
    desk.broker.send(desk.name, b"x" * MOST_BYTES)
    desk.read()

    until(lambda: len(desk.broker.dead(desk.dead)) == 1)
    until(desk.settled)

    assert b"x" * (MOST_BYTES - 4096) == desk.broker.dead(desk.dead)[0][0]
