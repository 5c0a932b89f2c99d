from __future__ import annotations

import json
from pathlib import Path

import pytest

from proofs.workers import run_worker
from tests.serve.plane import Plane
from tests.serve.queues.brokers import Broker
from tests.serve.queues.conftest import opened_desk
from tests.serve.queues.crash_worker import work

_WORKER = "tests.serve.queues.crash_worker"


@pytest.mark.timeout(180)
def test_a_kill_between_commit_and_acknowledgement_starts_nothing_twice(
    server: Broker, tmp_path: Path
) -> None:
    """Killed with signal 9 before and after the commit, a message has one run and is settled."""
    with Plane(tmp_path) as plane, opened_desk(plane, server) as desk:
        desk.apply(dedupe="body:/id")
        message = json.dumps({"type": "created", "title": "vpn", "id": "m-1"}).encode()
        desk.broker.send(desk.name, message)

    codes = []
    for point in ("trigger.accept.before", "trigger.accept.after", ""):
        (tmp_path / "crash").write_text(point)
        codes.append(run_worker(work, str(tmp_path), "1", preloaded=(_WORKER,)))

    with Plane(tmp_path) as plane:
        desk.plane = plane
        assert [-9, -9, 0] == codes
        assert ["m-1"] == [key for key, _ in desk.runs()]
    assert desk.settled()
    assert [] == server.dead(desk.dead)
