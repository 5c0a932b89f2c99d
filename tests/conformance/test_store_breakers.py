"""Breakers in the store: opened by what one worker saw, shared by all, closed by one probe."""

from __future__ import annotations

from interlock.domain.breaker import Breaker, topic_of
from interlock.domain.effect import Reply, Transport
from interlock.domain.ids import EffectId, RunId, StepName
from interlock.domain.tool import Server
from interlock.store import breakers, waits
from interlock.store.breakers import Breakers
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import SECOND_US, running

DESK = "desk-dev"
SERVER = Server(name=DESK, system="desk", environment="dev", kind="python")
FINE = Reply(transport=Transport.REPLY, status=200)
DOWN = Reply(transport=Transport.REPLY, status=503)
LOCAL = Reply(transport=Transport.NOT_SENT)


def hear(db: Database, worker: Breakers, *replies: Reply, effect: str = "e0") -> list[str | None]:
    """Let a worker hear how calls went; return what changed, `-` if nothing had to be written."""
    changes: list[str | None] = []
    for reply in replies:
        change = worker.heard(SERVER, EffectId(effect), reply)
        changes.append("-" if change is None else db.run("change", change))
        if change is not None:
            worker.look_again()
    return changes


def ask(db: Database, worker: Breakers, effect: str) -> float | None:
    """Ask to send a call; return after how many seconds to ask again, None if it is sent."""

    def intend(tx: Tx) -> int | None:
        until_us = worker.hold(tx, DESK, EffectId(effect))
        if until_us is None:
            worker.claim(tx, DESK, EffectId(effect), deadline_us=tx.now_us + 20 * SECOND_US)
        return until_us

    until_us = db.run("ask", intend)
    return None if until_us is None else round((until_us - START_US) / SECOND_US, 2)


def find(db: Database) -> Breaker | None:
    """Return the breaker as it stands."""
    with db.reading() as tx:
        return breakers.find(tx, DESK)


def opened(db: Database) -> Breakers:
    """Return a worker that has just opened the breaker."""
    worker = Breakers()
    hear(db, worker, *[DOWN] * 5)
    return worker


def park(db: Database, key: str, due_s: float) -> RunId:
    """Let a run wait for the server to work again."""
    run = running(db, key)
    due_us = START_US + round(due_s * SECOND_US)
    name = StepName("call#breaker.1.1")
    db.run("park", lambda tx: waits.open_wait(tx, run.run_id, name, topic_of(DESK), due_us))
    return run.run_id


def due(db: Database, *run_ids: RunId) -> list[float]:
    """Return when runs are woken, in seconds."""
    with db.reading() as tx:
        found = [waits.list_waits(tx, run_id)[0].due_us or 0 for run_id in run_ids]
    return [round((due_us - START_US) / SECOND_US, 2) for due_us in found]


def test_five_failures_in_a_row_open_it(db: Database) -> None:
    """Nothing is written before, and what never left says nothing."""
    worker = Breakers()

    changes = hear(db, worker, FINE, *[DOWN] * 4, LOCAL, DOWN)

    assert ["-"] * 6 + ["opened"] == changes
    assert find(db) == Breaker(
        server=DESK,
        opened_us=START_US,
        until_us=START_US + 30 * SECOND_US,
        openings=1,
        reason="5 of its last 6 calls failed; it answered 503",
        by="interlock",
    )


def test_half_of_the_last_twenty_opens_it(db: Database) -> None:
    """Also if no two failures follow one another."""
    changes = hear(db, Breakers(), *[DOWN, FINE] * 10)

    assert ["-"] * 18 + ["opened"] == changes[:19]


def test_open_it_is_for_all_workers_after_half_a_second(db: Database, clock: ManualClock) -> None:
    """Others look at the rows again; who asks first comes back first."""
    other = Breakers()
    assert None is ask(db, other, "e1")
    worker = opened(db)

    clock.advance(0.5)
    told = [ask(db, each, f"e{n}") for n, each in enumerate((worker, other, Breakers()))]

    assert [30, 32, 32.05] == told


def test_hint_of_the_upstream_is_honoured(db: Database) -> None:
    """It is open at least as long as `Retry-After` says."""
    worker = Breakers()
    hint = Reply(transport=Transport.REPLY, status=429, retry_after_s=90.0)

    hear(db, worker, *[DOWN] * 4, hint)

    assert 90 == ask(db, worker, "e1")


def test_one_call_probes_over_all_workers(db: Database, clock: ManualClock) -> None:
    """Of two that ask at once when the time is over one is sent, the other waits for it."""
    opened(db)
    clock.advance(30)

    def intend(tx: Tx) -> bool:
        worker, effect = Breakers(), EffectId(tx.new_id())
        is_mine = worker.hold(tx, DESK, effect) is None
        if is_mine:
            worker.claim(tx, DESK, effect, deadline_us=tx.now_us + SECOND_US)
        return is_mine

    assert [False, True] == sorted(both(db, intend))


def test_success_of_the_probe_closes_it(db: Database, clock: ManualClock) -> None:
    """Those who wait come back one after the other from now on; what others say is not heard."""
    worker = opened(db)
    one, two = park(db, "k1", 30), park(db, "k2", 32)
    clock.advance(30)
    assert None is ask(db, worker, "probe")
    during = due(db, one, two)

    late = hear(db, worker, FINE, DOWN, effect="other")
    changes = hear(db, worker, FINE, effect="probe")

    assert ([None, None], ["closed"]) == (late, changes)
    assert [55, 57] == during
    assert [30, 30.05] == due(db, one, two)
    assert None is find(db)
    assert None is ask(db, worker, "e1")


def test_failure_of_the_probe_doubles_the_time(db: Database, clock: ManualClock) -> None:
    """Up to five minutes; nobody is woken for it."""
    worker = opened(db)
    run_id = park(db, "k1", 30)
    clock.advance(30)
    openings, lengths = [], []
    for n in range(5):
        ask(db, worker, f"p{n}")
        hear(db, worker, DOWN, effect=f"p{n}")
        held = find(db)
        assert held is not None
        openings.append(held.openings)
        lengths.append((held.until_us - clock.now_us()) // SECOND_US)
        assert [round((held.until_us - START_US) / SECOND_US, 2)] == due(db, run_id)
        clock.advance(lengths[-1])

    assert ([2, 3, 4, 5, 6], [60, 120, 240, 300, 300]) == (openings, lengths)


def test_probe_that_never_left_lets_another_one_try(db: Database, clock: ManualClock) -> None:
    """A reason of ours says nothing about the server."""
    worker = opened(db)
    clock.advance(30)
    ask(db, worker, "e1")

    changes = hear(db, worker, LOCAL, effect="e1")

    assert [None] == changes
    assert None is ask(db, worker, "e2")


def test_probe_of_a_dead_worker_holds_it_for_a_time_only(db: Database, clock: ManualClock) -> None:
    """Its deadline and five seconds; the same call, taken over, need not wait for itself."""
    worker = opened(db)
    clock.advance(30)
    ask(db, worker, "dead")
    during = [ask(db, Breakers(), "e1"), ask(db, Breakers(), "dead")]
    clock.advance(25)

    assert [55, None] == during
    assert [None, 80] == [ask(db, Breakers(), "e2"), ask(db, Breakers(), "e3")]


def test_people_open_and_close_it(db: Database, clock: ManualClock) -> None:
    """By hand it is open for a time, whatever calls say; then one probes as ever."""
    worker = Breakers()
    park_s = 3600
    db.run(
        "open",
        lambda tx: breakers.open_by_hand(
            tx, DESK, for_us=park_s * SECOND_US, reason="they migrate", by="dana"
        ),
    )
    held = ask(db, worker, "e1")
    run_id = park(db, "k1", park_s)
    clock.advance(60)

    closed = [db.run("close", lambda tx: breakers.close(tx, DESK)) for _ in range(2)]

    assert park_s == held
    assert [True, False] == closed
    assert [60] == due(db, run_id)
    assert None is ask(db, Breakers(), "e1")


def test_those_who_wait_are_counted(db: Database) -> None:
    """Only for servers; and they count as runs that cannot go on."""
    opened(db)
    park(db, "k1", 30)
    other = running(db, "k2")
    db.run("park", lambda tx: waits.open_wait(tx, other.run_id, StepName("w"), "reply", None))

    with db.reading() as tx:
        assert {topic_of(DESK): 1} == breakers.count_waiting(tx)
