"""The second look: a worker of another host, paused for too long, doubles an effect and is seen.

The recording tool server is real; the worker that sends too late is its own request, kept back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.calls.reconcile import settle
from interlock.calls.road import Call, Sender
from interlock.domain.canonical import JsonObject
from interlock.domain.effect import EffectState, Reply, Transport
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import RECHECK, Run, RunState
from interlock.runtime.steps import Services
from interlock.store import effects, leases, runs
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.calls.call_bench import NOT_SENT, UNKNOWN, CallBench, created, found, said
from tests.road_bench import DANA, RoadBench

PROBED = TOOL_OF["probed"]
NOT_YET = (found(), found())
"""The first question comes before the quiet time, the second after it."""


class PausedSender:
    """Keeps back the first write, as a worker does that is paused and taken for dead as it sends.

    If it `wakes`, it sends it after all, when the next one has done its work.
    """

    def __init__(self, sender: Sender, steal: Callable[[], None]) -> None:
        self._sender, self._steal = sender, steal
        self._kept: Call | None = None
        self.wakes = True

    async def prepare(self, call: Call) -> JsonObject | None:
        """Fetch what a guard needs."""
        return await self._sender.prepare(call)

    async def send(self, call: Call) -> Reply:
        """Send, but for the first write."""
        if self._kept is None and call.effect.is_write:
            self._kept = call
            self._steal()
            return Reply(transport=Transport.UNKNOWN, problem="it was paused")
        reply = await self._sender.send(call)
        if call.effect.is_write and self._kept is not None and self.wakes:
            await self._sender.send(self._kept)
        return reply


class PausedBench(RoadBench):
    """A plane with a real tool server, and a worker that is paused past its lease as it sends."""

    def __init__(self, url: str, recorder: Recorder, *, was_seen: bool = False) -> None:
        super().__init__(url, files(recorder.url))
        self._was_seen = was_seen
        self.sender = PausedSender(self.road.sender, self._steal)
        self.road = replace(self.road, sender=self.sender)
        self._services = Services(road=self.road, catalog=self._services.catalog)

    def rechecks(self, run_id: RunId) -> list[Run]:
        """Return the second looks that a run has led to."""
        with self.db.reading() as tx:
            return [r for r in runs.children(tx, run_id) if r.request.trigger.kind == RECHECK]

    def _steal(self) -> None:
        owner = ExecutorId("memory")
        self.db.run(
            "takeover",
            lambda tx: leases.takeover(tx, owner, max_recoveries=9, was_seen=self._was_seen),
        )


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path) as running:
        yield running


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose tools answer as a test has written down."""
    with CallBench(sqlite_url) as running:
        yield running


@pytest.fixture
def paused(database_url: str, recorder: Recorder) -> Iterator[PausedBench]:
    """Run a plane whose first call is on a host that is taken for dead."""
    with PausedBench(database_url, recorder) as running:
        yield running


def test_a_worker_that_wakes_past_the_quiet_time_is_found_out(
    paused: PausedBench, recorder: Recorder
) -> None:
    """Two effects outside, one in the ledger: parked with both counted, and settled by a person."""
    run_id = paused.run(WORKFLOW_OF["probed"], {"text": "hello"})
    paused.engine.advance(60)
    ended = paused.get(run_id).state

    paused.engine.advance(120)

    effect = next(e for e in paused.effects(run_id) if e.is_write)
    [looked] = paused.rechecks(run_id)
    assert RunState.SUCCEEDED is ended
    assert 2 == len(recorder.log().effects)
    assert (EffectState.PARKED, "effect.doubled") == (effect.state, effect.error_code)
    assert (RunState.SUCCEEDED, "doubled") == (looked.state, looked.end_state)
    assert ["recheck.due", "rechecked", "parked"] == [
        kind for kind in paused.evidence(effect) if kind in {"recheck.due", "rechecked", "parked"}
    ]
    settle(
        paused.db,
        paused.engine.dispatch,
        effect.effect_id,
        by=DANA,
        answer="done",
        reason="I removed the other one",
    )
    with paused.db.reading() as tx:
        assert EffectState.CONFIRMED_DONE is effects.get(tx, effect.effect_id).state


def test_a_worker_that_never_wakes_leaves_one_effect(
    paused: PausedBench, recorder: Recorder
) -> None:
    """The second look finds what the ledger has, and changes nothing."""
    paused.sender.wakes = False
    run_id = paused.run(WORKFLOW_OF["probed"], {"text": "hello"})
    paused.engine.advance(60)
    early = [looked.state for looked in paused.rechecks(run_id)]

    paused.engine.advance(120)

    effect = next(e for e in paused.effects(run_id) if e.is_write)
    [looked] = paused.rechecks(run_id)
    assert [RunState.WAITING] == early
    assert (EffectState.SUCCEEDED, None) == (effect.state, effect.error_code)
    assert (RunState.SUCCEEDED, "confirmed") == (looked.state, looked.end_state)
    assert 1 == len(recorder.log().effects)


def test_there_is_no_second_look_at_a_worker_that_was_seen_to_end(
    sqlite_url: str, recorder: Recorder
) -> None:
    """It cannot wake: one quiet time is enough."""
    with PausedBench(sqlite_url, recorder, was_seen=True) as bench:
        run_id = bench.run(WORKFLOW_OF["probed"], {"text": "hello"})
        bench.engine.advance(60)

        assert RunState.SUCCEEDED is bench.get(run_id).state
        assert [] == bench.rechecks(run_id)


def test_the_second_look_is_twice_the_quiet_time_after_the_last_sign_of_life(
    bench: CallBench,
) -> None:
    """A lease of 20 s, 5 s to wake, the tool's limit and its lag make one quiet time."""
    bench.outside.on_send = lambda _call: _steal_unseen(bench)

    run_id = bench.call("probed")
    lost_us = bench.get(run_id).lost_us
    bench.engine.advance(60)

    [looked] = _rechecks(bench, run_id)
    assert isinstance(looked.request.input, dict)
    at_us = looked.request.input["at_us"]
    assert isinstance(at_us, int)
    assert lost_us is not None
    seen_us, quiet_s = lost_us - 20_000_000, 20 + 5 + 5 + 0.1
    assert 2 * quiet_s == pytest.approx((at_us - seen_us) / 1e6)


@pytest.mark.parametrize("numbers", [(), ("7",)], ids=["none", "one"])
def test_a_call_that_failed_in_the_end_must_not_be_there(
    bench: CallBench, numbers: tuple[str, ...]
) -> None:
    """The ledger says that nothing was done, so that even one is too many."""
    _lose(bench, NOT_SENT)
    bench.outside.answers("read", *NOT_YET, found(*numbers))

    run_id = bench.call("probed")
    bench.pass_time(run_id)
    failed = bench.state(run_id)
    bench.engine.advance(120)

    expected = EffectState.PARKED if numbers else EffectState.FAILED_DEFINITE
    assert (EffectState.FAILED_DEFINITE, RunState.FAILED) == failed
    assert expected is bench.one(run_id).state


def test_a_call_that_has_not_ended_is_looked_at_when_it_has(bench: CallBench) -> None:
    """Until then a second one would be taken for the first."""
    _lose(bench, UNKNOWN)
    bench.outside.answers("read", *NOT_YET, said(500), said(500), said(500), said(500), found())
    run_id = bench.call("probed")
    bench.pass_time(run_id)
    bench.engine.advance(300)
    parked, waits = bench.state(run_id), [looked.state for looked in _rechecks(bench, run_id)]

    bench.outside.answers("read", found("7"))
    bench.settle(bench.one(run_id), "absent")

    looked = _ended(bench, run_id)

    assert ((EffectState.PARKED, RunState.WAITING), [RunState.WAITING]) == (parked, waits)
    assert (EffectState.PARKED, "effect.doubled") == (
        bench.one(run_id).state,
        bench.one(run_id).error_code,
    )
    assert "doubled" == looked.end_state


@pytest.mark.parametrize("is_dropped", [False, True], ids=["no answer", "no such tool"])
def test_a_second_look_that_finds_nothing_out_fails_in_sight(
    bench: CallBench, *, is_dropped: bool
) -> None:
    """Five questions a minute apart; the effect stays what its own answer says."""
    _lose(bench, created())
    bench.outside.answers("read", *NOT_YET, said(500))
    run_id = bench.call("probed")
    bench.pass_time(run_id)
    if is_dropped:
        dropped = ("tools/", "workflows/")
        project = files("http://127.0.0.1:9")
        bench.apply({path: text for path, text in project.items() if not path.startswith(dropped)})

    looked = _ended(bench, run_id)

    assert EffectState.SUCCEEDED is bench.one(run_id).state
    assert (RunState.FAILED, "recheck.unanswered") == (looked.state, looked.error_code)
    assert "5 probes did not tell" == looked.error_message


def test_a_cancel_does_not_stop_a_second_look(bench: CallBench) -> None:
    """It is about what was sent already."""
    _lose(bench, UNKNOWN)
    bench.outside.answers("read", *NOT_YET, said(500))
    run_id = bench.call("probed")
    bench.pass_time(run_id)
    bench.outside.answers("read", found("7", "8"))

    bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
    bench.engine.run_until_idle()

    looked = _ended(bench, run_id)

    assert RunState.CANCELLED is bench.get(run_id).state
    assert RunState.SUCCEEDED is looked.state
    assert "rechecked" in bench.evidence(bench.one(run_id))


@pytest.mark.parametrize(
    ("point", "tool", "nth"),
    [
        ("call.probe.before", PROBED, 4),
        ("call.probe.after", PROBED, 4),
        ("call.recheck.before", None, 1),
        ("call.recheck.after", None, 1),
        ("call.rechecked.before", PROBED, 1),
        ("call.rechecked.after", PROBED, 1),
    ],
)
def test_a_second_look_survives_its_worker(
    bench: CallBench, point: str, tool: str | None, nth: int
) -> None:
    """Lost around each of its transactions, it comes to the same end, once."""
    _lose(bench, created())
    bench.outside.answers("read", *NOT_YET, found("7", "8"))

    def lose(left: int) -> None:
        bench.points.at(point, tool, bench.steal if left == 1 else lambda: lose(left - 1))

    lose(nth)
    run_id = bench.call("probed")
    bench.pass_time(run_id)
    looked = _ended(bench, run_id)

    effect = bench.one(run_id)
    assert (EffectState.PARKED, "doubled") == (effect.state, looked.end_state)
    assert 1 == bench.evidence(effect).count("rechecked")
    assert 2 == bench.outside.count("probed")


def _lose(bench: CallBench, *answers: Reply) -> None:
    """Let the first owner of the probed call be taken for dead, and the resend be answered so."""
    bench.outside.on_send = lambda _call: _steal_unseen(bench)
    bench.outside.answers("probed", UNKNOWN, *answers)


def _steal_unseen(bench: CallBench) -> None:
    bench.outside.on_send = lambda _call: None
    bench.steal(was_seen=False)


def _rechecks(bench: CallBench, run_id: RunId) -> list[Run]:
    with bench.db.reading() as tx:
        return [r for r in runs.children(tx, run_id) if r.request.trigger.kind == RECHECK]


def _ended(bench: CallBench, run_id: RunId) -> Run:
    """Let time pass until the second look has ended, and return it."""
    for _ in range(200):
        if not _rechecks(bench, run_id)[0].state.is_final:
            bench.engine.advance(60)
    [looked] = _rechecks(bench, run_id)
    return looked
