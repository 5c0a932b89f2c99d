"""A server's reader as a process of its own, which dies where told or ends when all is settled."""

from __future__ import annotations

from pathlib import Path

from interlock.app import Interlock
from interlock.config import Config
from interlock.serve.queues.loop import QueueLoop
from tests.serve.queues.brokers import soon


def work(folder: str, wanted: str) -> None:
    """Read until `wanted` messages are accepted; a point in FOLDER/crash is armed."""
    place = Path(folder)
    interlock = Interlock.open(Config(data_dir=place / "data", crash_file=place / "crash"))
    loop = QueueLoop(interlock.intake, redeliver_s=1.0)
    loop.start()
    while sum(standing.accepted for standing in loop.standing()) < int(wanted):
        soon()
    loop.stop()
    interlock.close()
