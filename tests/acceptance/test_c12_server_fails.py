"""C12: the tool answers 429 or 503 for a while with many runs at hand; all drain, none twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from interlock.domain.effect import EffectState
from interlock.domain.errors import IntakeFullError
from interlock.domain.ids import EffectId, RunId
from interlock.domain.run import RunState
from interlock.store import breakers, migrate
from interlock.store.breakers import Breakers
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.acceptance.road_worker import work
from tests.acceptance.workers import run_worker
from tests.calls.call_bench import CallBench, said
from tests.road_bench import RoadBench

RUNS = 12
SERVER = "recorder-dev"


@pytest.fixture
def bench(database_url: str) -> Iterator[CallBench]:
    """Run a plane that lets 12 runs of the workflow wait, and no more."""
    path = f"workflows/{WORKFLOW_OF['keyed']}.yaml"
    text = files("http://127.0.0.1:9")[path].replace("inputs:", f"max_queued: {RUNS}\ninputs:")
    with CallBench(database_url, edits={path: text}) as running:
        yield running


def stand(bench: CallBench, run_ids: list[RunId]) -> Counter[tuple[RunState, str | None]]:
    """Count how runs stand, and what for they wait."""
    return Counter((run.state, run.reason) for run in map(bench.get, run_ids))


def until_full(bench: CallBench) -> Iterator[RunId]:
    """Start one run after the other until no more are taken."""
    for n in range(2 * RUNS):
        try:
            yield bench.call("keyed", key=str(n))
        except IntakeFullError:
            return


def until_asked_again(bench: CallBench) -> float:
    """Return for how many seconds more nothing is sent."""
    with bench.db.reading() as tx:
        [held] = breakers.list_all(tx)
        return (held.until_us - tx.now_us) / 1_000_000


def test_calls_wait_while_their_server_fails_and_none_is_made_twice(bench: CallBench) -> None:
    """Five calls find out; the others are not sent, and one by one asks whether it works again."""
    # Five different calls: a pause that is shorter would be held, and one call could use up all of
    # its attempts.
    later = said(503, retry_after_s=3.0)
    bench.outside.answers("keyed", *[later] * 4, said(429, retry_after_s=45.0))
    run_ids = list(until_full(bench))
    sent = [bench.outside.count("keyed")]
    waiting = stand(bench, run_ids)

    left_s = until_asked_again(bench)
    for pause_s in (left_s - 1, 1, 50):
        bench.engine.advance(pause_s)
        sent.append(bench.outside.count("keyed"))
    found = [bench.get(run_id) for run_id in run_ids]
    ended = [(run.error_code, run.error_message) for run in found if run.state.is_final]
    bench.outside.answers("keyed", said(201, {"id": "1"}))
    for _ in range(4):
        bench.engine.advance(30)

    assert [5, 5, 6, 6] == sent
    assert 40 < left_s <= 45
    assert RUNS == waiting[RunState.WAITING, f"breaker/{SERVER}"]
    assert [] == ended
    assert Counter({(RunState.SUCCEEDED, None): len(run_ids)}) == stand(bench, run_ids)
    done = Counter(call.effect.idem_key for call in bench.outside.sent[6:])
    assert Counter(bench.one(run_id).idem_key for run_id in run_ids) == done
    with bench.db.reading() as tx:
        assert [] == breakers.list_all(tx)


def test_runs_come_back_in_order_and_not_as_a_herd(bench: CallBench) -> None:
    """After one call has shown that the server works, twenty a second follow, oldest first."""
    bench.outside.answers("keyed", *[said(503)] * 5, said(201, {"id": "1"}))
    run_ids = [bench.call("keyed", key=str(n)) for n in range(RUNS)]

    held = [run_id for run_id in run_ids if bench.get(run_id).reason == f"breaker/{SERVER}"]
    bench.engine.advance(until_asked_again(bench))
    counts = [bench.outside.count("keyed")]
    for pause_s in (0, *[0.05] * (RUNS - 2)):
        bench.engine.advance(pause_s)
        counts.append(bench.outside.count("keyed"))

    # The first ones may pause before their next attempt when it opens: they come when that is over,
    # and one of them may then be the call that asks, instead of who has waited longest.
    assert RUNS - 2 <= len(held)
    sent = [call.effect.run_id for call in bench.outside.sent[5:]]
    assert held[1:] == [run_id for run_id in sent if run_id in held[1:]]
    assert {1} >= {later - sooner for sooner, later in pairwise(counts)} - {0, 2}


@pytest.mark.parametrize("effect_class", ["read", "conditional"])
def test_server_that_is_not_there_is_left_alone(sqlite_url: str, effect_class: str) -> None:
    """Nothing listens at the address: also where only a one-time link would have been fetched."""
    with RoadBench(sqlite_url, files("http://127.0.0.1:1")) as bench:
        for n in range(3):
            bench.run(WORKFLOW_OF[effect_class], {"text": "hello"}, key=str(n))

        with bench.db.reading() as tx:
            [held] = breakers.list_all(tx)

    assert "5 of its last 5 calls failed; it could not be reached" == held.reason


def test_unknown_outcome_of_a_blind_call_is_not_sent_again_by_a_breaker(bench: CallBench) -> None:
    """It is parked as ever, also if it was the probe."""
    bench.outside.answers("blind", said(500))
    run_ids = [bench.call("blind", key=str(n)) for n in range(6)]
    before = bench.outside.count("blind")

    for _ in range(3):
        bench.engine.advance(60)

    assert (5, 6) == (before, bench.outside.count("blind"))
    assert {EffectState.PARKED} == {bench.one(run_id).state for run_id in run_ids}


def test_killed_with_the_probe_it_does_not_stay_half_open(
    database_url: str, tmp_path: Path
) -> None:
    """Kill -9 between the intent and the first byte: in ten seconds another call may probe."""
    is_sqlite = database_url.startswith("sqlite")
    path = tmp_path / "data" / "interlock.db"
    path.parent.mkdir(mode=0o700)
    url = f"sqlite:///{path}" if is_sqlite else database_url
    database = Database(url)
    migrate.upgrade(database)
    database.run(
        "open", lambda tx: breakers.open_by_hand(tx, SERVER, for_us=0, reason="test", by="dana")
    )
    (tmp_path / "armed").write_text(f"send.before {TOOL_OF['blind']}")

    with Recorder(tmp_path) as recorder:
        where = (str(tmp_path), database_url, recorder.url, WORKFLOW_OF["blind"])
        ended = run_worker(work, *where, "-", "a")

    with database.reading() as tx:
        now_us, [held] = tx.now_us, breakers.list_all(tx)
    database.close()
    clock = ManualClock(now_us)
    database = Database(url, clock=clock)
    until_us = []
    for _ in range(2):
        until_us.append(
            database.run("ask", lambda tx: Breakers().hold(tx, SERVER, EffectId("other")))
        )
        clock.advance(10)
    database.close()
    assert -signal.SIGKILL == ended
    assert held.probe is not None
    assert [held.probe_until_us, None] == until_us
