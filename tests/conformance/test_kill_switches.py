"""Kill switches on the road: what is new is refused, what people or the ledger wait for is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from interlock.calls.road import Call
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, InputError, InterlockError
from interlock.domain.ids import ToolName, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind
from interlock.domain.run import RunState
from interlock.domain.switch import KillSwitch, Scope
from interlock.runtime import control
from interlock.store import decisions, switches
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.calls.call_bench import FOUND_NONE, UNKNOWN, CallBench, created
from tests.calls.test_compensate import UndoBench, undoable
from tests.road_bench import DANA, RoadBench

OPS = replace(DANA, name="ops")
DEV = Scope(environment="dev")


@pytest.fixture
def bench(database_url: str) -> Iterator[CallBench]:
    """Run a plane on each database."""
    with CallBench(database_url) as running:
        yield running


def stop(bench: RoadBench, scope: Scope = DEV, *, for_us: int | None = None) -> KillSwitch:
    """Set a switch."""
    return control.set_switch(
        bench.db, bench.road.live.at, scope, by=OPS, reason="a test", for_us=for_us, models=()
    ).switch


def lift(bench: CallBench, switch: KillSwitch) -> None:
    """Lift it, and let go on what waited."""
    control.lift_switch(bench.db, switch.switch_id, by=OPS, reason="it is over")
    bench.engine.advance(0.1)


def test_a_new_call_is_refused_and_nothing_is_sent(bench: CallBench) -> None:
    """Its decision names the switch, its agent is not told why it was set."""
    switch = stop(bench)
    run_id = bench.call("keyed")

    effect = bench.one(run_id)
    with bench.db.reading() as tx:
        [decision] = decisions.list_for_effect(tx, effect.effect_id)
    assert [] == bench.outside.sent
    assert (EffectState.DENIED, "call.stopped") == (effect.state, effect.error_code)
    assert "an operator has stopped calls of this kind" == effect.error_message
    assert (f"kill/{switch.switch_id}",) == decision.decision.policy_ids


@pytest.mark.parametrize(
    "scope",
    [
        Scope(environment="dev", workflow=WorkflowName(WORKFLOW_OF["blind"])),
        Scope(environment="dev", tool=ToolName(TOOL_OF["blind"])),
    ],
)
def test_what_it_does_not_name_goes_on(bench: CallBench, scope: Scope) -> None:
    """A switch is as narrow as it was set."""
    stop(bench, scope)
    run_ids = [bench.call("keyed"), bench.call("blind"), bench.call("read")]

    assert [EffectState.SUCCEEDED, EffectState.DENIED, EffectState.SUCCEEDED] == [
        bench.one(run_id).state for run_id in run_ids
    ]


def test_reads_go_on_if_only_writes_are_stopped(bench: CallBench) -> None:
    """Agents may go on to look."""
    stop(bench, Scope(environment="dev", system="recorder", writes_only=True))
    run_ids = [bench.call("keyed"), bench.call("read")]

    assert [EffectState.DENIED, EffectState.SUCCEEDED] == [
        bench.one(run_id).state for run_id in run_ids
    ]


def test_it_ends_by_itself_when_its_time_is_over(bench: CallBench) -> None:
    """By database time, for calls that come then."""
    stop(bench, for_us=60_000_000)
    refused = bench.call("keyed", key="a")
    bench.clock.advance(61)
    made = bench.call("keyed", key="b")

    assert [EffectState.DENIED, EffectState.SUCCEEDED] == [
        bench.one(run_id).state for run_id in (refused, made)
    ]


def test_an_approval_stays_and_cannot_pass_until_it_is_lifted(database_url: str) -> None:
    """People may answer meanwhile; what they approved is sent once it may be, and only then."""
    with CallBench(database_url, approve=True) as bench:
        run_id = bench.call("keyed")
        switch = stop(bench)
        [approval] = bench.asked(run_id)
        bench.approve(approval)
        bench.engine.advance(120)
        before = (len(bench.outside.sent), bench.get(run_id).state, bench.get(run_id).reason)

        lift(bench, switch)

        assert (0, RunState.WAITING, f"kill/{switch.switch_id}") == before
        assert 1 == len(bench.outside.sent)
        assert EffectState.SUCCEEDED is bench.one(run_id).state


def test_unknown_outcome_is_not_sent_again_while_it_is_stopped(bench: CallBench) -> None:
    """A keyed write without an answer may be repeated, and waits for that until it is lifted."""
    set_now = list[KillSwitch]()

    def answer(_call: Call) -> None:
        if not set_now:
            set_now.append(stop(bench))

    bench.outside.on_send = answer
    bench.outside.answers("keyed", UNKNOWN, created())
    run_id = bench.call("keyed")
    bench.engine.advance(180)
    before = (len(bench.outside.sent), bench.one(run_id).state)

    lift(bench, set_now[0])

    assert (1, EffectState.AMBIGUOUS) == before
    assert 2 == len(bench.outside.sent)
    assert EffectState.SUCCEEDED is bench.one(run_id).state


def test_a_probe_waits_as_well_and_is_not_counted_as_one_that_found_nothing(
    bench: CallBench,
) -> None:
    """Else five refused probes would leave to a person what the sixth would have settled."""
    set_now = list[KillSwitch]()

    def answer(_call: Call) -> None:
        if not set_now:
            set_now.append(stop(bench))

    bench.outside.on_send = answer
    bench.outside.answers("probed", UNKNOWN, created())
    bench.outside.answers("read", FOUND_NONE)
    run_id = bench.call("probed")
    bench.engine.advance(300)
    before = (len(bench.outside.sent), bench.one(run_id).state)

    lift(bench, set_now[0])
    bench.pass_time(run_id)

    assert (1, EffectState.PROBING) == before
    assert EffectState.SUCCEEDED is bench.one(run_id).state
    assert 2 == bench.outside.count("probed")


def test_a_compensation_waits_until_it_is_lifted(database_url: str) -> None:
    """To stop an agent must not mean that what it did stays half done for good."""
    with UndoBench(database_url, undoable()) as bench:
        run_id = bench.write("a")
        switch = stop(bench)
        undo_id = bench.undo(run_id)
        bench.engine.advance(120)
        before = (bench.removed(), bench.get(undo_id).state)

        lift(bench, switch)

        assert ([], RunState.WAITING) == before
        assert ["1"] == bench.removed()
        assert RunState.SUCCEEDED is bench.get(undo_id).state


def test_who_lifts_in_prod_is_two_people(bench: CallBench) -> None:
    """The same person twice is one, and so are two who want different things."""
    switch = stop(bench, Scope(system="recorder"))
    kim = replace(DANA, name="kim")
    writes = Scope(system="recorder", writes_only=True)

    def said(by: Principal, leaving: Scope | None = None) -> KillSwitch:
        return control.lift_switch(
            bench.db, switch.switch_id, by=by, reason="it is over", leaving=leaving
        )[0]

    asked = [said(OPS), said(OPS), said(kim, writes)]
    bench.clock.advance(3601)
    late = said(OPS, writes)
    both = said(kim, writes)

    assert [None] * 4 == [each.lifted_us for each in (*asked, late)]
    assert both.lifted_us is not None
    assert ("ops", "kim") == both.lifted_by
    with bench.db.reading() as tx:
        assert [writes] == [each.scope for each in switches.list_in_force(tx)]


@pytest.mark.parametrize(
    ("by", "leaving", "said"),
    [
        (replace(OPS, kind=PrincipalKind.SERVICE), None, "`ops` is no person"),
        (OPS, Scope(), "less than what the switch stops, environment `dev`"),
        (OPS, DEV, "less than what the switch stops, environment `dev`"),
    ],
)
def test_what_cannot_be_lifted_says_why(
    bench: CallBench, by: Principal, leaving: Scope | None, said: str
) -> None:
    """A machine must not undo what a person stopped, and a lift never stops more."""
    switch = stop(bench)

    with pytest.raises(InterlockError, match=said):
        control.lift_switch(bench.db, switch.switch_id, by=by, reason="x", leaving=leaving)


def test_a_switch_is_lifted_once(bench: CallBench) -> None:
    """Also one that is over by itself."""
    switch = stop(bench, for_us=1_000_000)
    bench.clock.advance(2)

    with pytest.raises(ConflictError, match="not in force any more"):
        control.lift_switch(bench.db, switch.switch_id, by=OPS, reason="it is over")


def test_a_name_that_nothing_has_is_refused(bench: CallBench) -> None:
    """A misspelt switch would stop nothing while everybody believes that it does."""
    with pytest.raises(InputError, match="no system `recordr`, did you mean `recorder`"):
        stop(bench, Scope(system="recordr"))


def test_what_is_under_way_is_told(bench: CallBench) -> None:
    """A call that has left cannot be called back; whoever sets the switch has to know of it."""
    told = list[control.Acknowledged]()

    def set_while_sent(_call: Call) -> None:
        told.append(
            control.set_switch(
                bench.db,
                bench.road.live.at,
                DEV,
                by=OPS,
                reason="a test",
                for_us=None,
                models=(),
            )
        )

    bench.outside.on_send = set_while_sent
    run_id = bench.call("keyed")

    assert [bench.one(run_id).effect_id] == [e.effect_id for e in told[0].in_flight]
    assert EffectState.SUCCEEDED is bench.one(run_id).state
