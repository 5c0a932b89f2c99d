"""A broker of each kind that this machine has, and an installation that takes its messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from interlock.domain.run import RunState
from interlock.serve.queues.consumer import Standing
from interlock.serve.queues.loop import QueueLoop
from interlock.store import runs
from tests.serve.plane import Plane
from tests.serve.queues.brokers import BROKERS, Broker
from tests.serve.sample import files

GROUP = "interlock"
_count = iter(range(1_000_000))


@pytest.fixture(scope="session", params=sorted(BROKERS))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """Run one broker for all tests of its kind."""
    kind: str = request.param
    if BROKERS[kind].program() is None:
        pytest.skip(f"this machine has no server of {kind}")
    broker = BROKERS[kind](tmp_path_factory.mktemp(kind))
    broker.start()
    yield broker
    broker.stop()


@dataclass(slots=True, kw_only=True)
class Desk:
    """An installation whose workflow takes `{type: created}` from `name`."""

    plane: Plane
    broker: Broker
    name: str
    dead: str
    loops: list[QueueLoop] = field(default_factory=list)

    def apply(self, *, extra: str = "", dead_letter: bool = True, **changes: str) -> None:
        """Apply the project with its queue; `changes` are members of the trigger's `queue`."""
        queue = {"url": self.broker.url, "name": self.name, **changes}
        if dead_letter:
            queue["dead_letter"] = self.dead
        members = ", ".join(f'{key}: "{value}"' for key, value in queue.items())
        self.plane.apply(queue_files(f"{{{members}}}", extra=extra))

    def drop(self) -> None:
        """Apply the project without its queue."""
        number = next(_count) + 2
        project = files()
        text = project["workflows/look.yaml"].replace("version: 1", f"version: {number}")
        self.plane.apply({**project, "workflows/look.yaml": text})

    def read(self, *, redeliver_s: float = 1.0) -> QueueLoop:
        """Start a server's reader."""
        loop = QueueLoop(self.plane.interlock.intake, redeliver_s=redeliver_s)
        loop.start()
        self.loops.append(loop)
        return loop

    def standing(self) -> Standing:
        """Return how it stands with the only queue in the first reader."""
        (only,) = self.loops[0].standing()
        return only

    def runs(self) -> list[tuple[str, RunState]]:
        """Return key and state of every run, oldest first."""
        with self.plane.interlock.db.reading() as tx:
            found = [run for run in runs.list_runs(tx) if run.request.trigger.kind == "queue"]
        return [(run.request.trigger.key, run.state) for run in reversed(found)]

    def settled(self) -> bool:
        """Return whether the group has nothing left to settle."""
        return self.broker.open_messages(self.name, GROUP) == 0


def queue_files(queue: str, *, extra: str = "") -> dict[str, str]:
    """Return the sample project with a queue in place of its webhook; `extra` ends the workflow."""
    project = files()
    text = project["workflows/look.yaml"]
    hook = "    webhook: desk\n    secret: secret://desk/dev/hook\n"
    assert hook in text
    version = next(_count) + 2
    text = text.replace(hook, f"    queue: {queue}\n").replace("version: 1", f"version: {version}")
    return {**project, "workflows/look.yaml": text + extra}


@pytest.fixture
def desk(plane: Plane, server: Broker) -> Iterator[Desk]:
    """Messages of a fresh name, which nobody reads yet."""
    with opened_desk(plane, server) as made:
        yield made


@contextmanager
def opened_desk(plane: Plane, server: Broker) -> Iterator[Desk]:
    """Make what keeps the messages of a fresh name; at the end nobody reads them."""
    number = next(_count)
    made = Desk(plane=plane, broker=server, name=f"orders.{number}", dead=f"dead.{number}")
    server.make(made.name)
    server.make(made.dead)
    yield made
    for loop in made.loops:
        loop.stop()
