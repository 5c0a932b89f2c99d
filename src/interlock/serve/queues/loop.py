"""The thread that reads queues: follows the live release, and drains when it is to stop."""

from __future__ import annotations

import asyncio
import threading

import structlog

from interlock.domain.errors import InterlockError
from interlock.domain.workflow import Queue
from interlock.runtime.triggers import Intake, queues_of
from interlock.serve.queues.consumer import Consumer, Standing

LOOK_S = 1.0
"""How often the live release is looked at."""
REDELIVER_S = 30.0

_log = structlog.get_logger(__name__)


class QueueLoop:
    """Reads every queue of the live release, in a thread with an event loop of its own."""

    def __init__(self, intake: Intake, *, redeliver_s: float = REDELIVER_S) -> None:
        self._intake = intake
        self._redeliver_s = redeliver_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._consumers: dict[Queue, tuple[Consumer, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def is_running(self) -> bool:
        """Whether this process reads queues."""
        return self._thread is not None

    def standing(self) -> tuple[Standing, ...]:
        """Return how it stands with each queue that is read here, by source."""
        found = [consumer.standing for consumer, _ in tuple(self._consumers.values())]
        return tuple(sorted(found, key=lambda standing: standing.queue.source))

    def start(self) -> None:
        """Start reading."""
        self._thread = threading.Thread(target=self._run, name="interlock-queues", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more; return when what is taken is finished or handed back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._change(await asyncio.to_thread(self._wanted))
            except InterlockError as error:
                # What is read stays read: the messages wait at the broker until we can store them.
                _log.warning("queue.unavailable", reason=error.message)
            await asyncio.to_thread(self._stop.wait, LOOK_S)
        self._change(frozenset())
        await asyncio.gather(*self._leaving)

    def _wanted(self) -> frozenset[Queue]:
        with self._intake.db.reading() as tx:
            return queues_of(self._intake.live.at(tx).release)

    def _change(self, wanted: frozenset[Queue]) -> None:
        for queue in self._consumers.keys() - wanted:
            consumer, task = self._consumers.pop(queue)
            consumer.stop()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for queue in wanted - self._consumers.keys():
            consumer = Consumer(self._intake, queue, redeliver_s=self._redeliver_s)
            self._consumers[queue] = consumer, asyncio.create_task(consumer.run())
