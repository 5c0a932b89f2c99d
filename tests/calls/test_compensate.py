"""Undo: in reverse order of outcomes, each undo a governed effect, what is left is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from interlock.calls.compensate import TODO, compensate, preview
from interlock.calls.road import Call
from interlock.domain.approval import Approval
from interlock.domain.canonical import Json
from interlock.domain.decision import Outcome
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import EffectId, RunId, ToolName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.record import to_json
from interlock.domain.run import RunState
from interlock.runtime.durable.segment import Segment
from interlock.store import approvals, decisions, effects, journal
from interlock.testing.recorder_project import TOOL_OF, files
from tests.calls.call_bench import UNKNOWN, CallBench, created, said, seat_of

KEYED, BLIND = TOOL_OF["keyed"], TOOL_OF["blind"]
REMOVE = "recorder.item.remove"
UNDO = "{tool: recorder.item.remove@1, args: {text: 'out:/id'}, within_h: 1}"
WORKFLOW_PATH = "workflows/call_keyed.yaml"


def undoable(*, approve: bool = False, is_listed: bool = True, undo: str = UNDO) -> dict[str, str]:
    """Return the edits that give the keyed tool an undo; the blind tool has none."""
    project = files("http://127.0.0.1:9")
    create = project[f"tools/{BLIND}.yaml"]
    remove = (
        create.replace(BLIND, REMOVE)
        .replace("/blind/items", "/blind/removals")
        .replace("{mode: create, type: item, id: 'out:/id'}", "")
    )
    tools = ", ".join([KEYED, BLIND, *([REMOVE] if is_listed else [])])
    workflow = project[WORKFLOW_PATH].replace(
        f"tools: [{KEYED}, {TOOL_OF['read']}]", f"tools: [{tools}]"
    )
    if approve:
        rule = f"approvals: [{{tool: {REMOVE}, by: data-owners, why: undos are approved}}]"
        workflow = workflow.replace("approvals: []", rule)
    dropped = {
        path: ""
        for path in project
        if path.startswith("workflows/")
        or path.endswith(("_linked.yaml", "_probed.yaml", "find.yaml"))
    }
    return dropped | {
        f"tools/{KEYED}.yaml": f"{project[f'tools/{KEYED}.yaml']}compensation: {undo}\n",
        f"tools/{REMOVE}.yaml": remove,
        WORKFLOW_PATH: workflow,
    }


class UndoBench(CallBench):
    """A plane whose calls take a second each, and whose runs are undone by runs of their own."""

    def __init__(self, url: str, edits: dict[str, str]) -> None:
        super().__init__(url, edits=edits)
        self.outside.on_send = self._take_a_second
        self.outside.answers("keyed", *(created(str(n)) for n in range(1, 9)))

    def write(self, *names: str, effect_class: str = "keyed") -> RunId:
        """Run a workflow that makes these writes, one after the other."""

        async def body(durable: Segment) -> Json:
            for name in names:
                await self.propose(durable, name, effect_class)
            return None

        self.body = body
        return self.call("keyed")

    def write_at_once(self, *writes: tuple[str, str]) -> RunId:
        """Run a workflow that makes these writes (name, effect class) in parallel branches."""

        async def body(durable: Segment) -> Json:
            async def one(name: str, effect_class: str) -> Json:
                return (await self.propose(durable, name, effect_class)).state

            await durable.gather([partial(one, *write) for write in writes])
            return None

        self.body = body
        return self.call("keyed")

    def undo(self, run_id: RunId) -> RunId:
        """Undo a run, as far as it gets at once, and return the run that does it."""

        async def body(durable: Segment) -> Json:
            undone = await compensate(self.road, durable, run_id, seat=seat_of(durable))
            return [to_json(undo) for undo in undone]

        self.body = body
        return self.call("keyed")

    def cancel(self, run_id: RunId) -> None:
        """Cancel a run and let it end."""
        self.db.run("cancel", lambda tx: self.engine.dispatch.cancel(tx, run_id))
        self.engine.run_until_idle()

    def removed(self) -> list[str]:
        """Return the ids of the items that were removed, in order."""
        sent = [c.effect.arguments for c in self.outside.sent if c.effect.tool == REMOVE]
        return [str(arguments["text"]) for arguments in sent]

    def left(self, undo_id: RunId) -> list[tuple[str, str | None]]:
        """Return the external id of each effect of an ended undo, and why it is left if it is."""
        output = self.get(undo_id).output
        assert isinstance(output, list)
        return [self._said_of(item) for item in output]

    def previewed(self, run_id: RunId) -> Json:
        """Return what the preview of an undo says."""
        with self.db.reading() as tx:
            release = self.road.live.at(tx).release
            return [to_json(undo) for undo in preview(tx, release, run_id)]

    def pending(self) -> list[Approval]:
        """Return the approvals that people are asked for."""
        with self.db.reading() as tx:
            return approvals.list_open(tx, tenant=DEFAULT_TENANT)

    def names(self, run_id: RunId, *states: EffectState) -> list[str]:
        """Return the names of the run's writes in these states."""
        return [str(e.arguments["text"]) for e in self.effects(run_id) if e.state in states]

    def _take_a_second(self, _call: Call) -> None:
        self.clock.advance(1)

    def _said_of(self, item: Json) -> tuple[str, str | None]:
        assert isinstance(item, dict)
        effect = self.effect(EffectId(str(item["effect_id"])))
        why = item.get("why")
        assert (why is None) == (item["is_undone"] is True)
        return str(effect.arguments["text"]), None if why is None else str(why)


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[UndoBench]:
    """Run a plane whose undos pass by policy."""
    with UndoBench(sqlite_url, undoable()) as running:
        yield running


@pytest.fixture
def asking(sqlite_url: str) -> Iterator[UndoBench]:
    """Run a plane whose undos wait for the group `data-owners`."""
    with UndoBench(sqlite_url, undoable(approve=True)) as running:
        yield running


def test_the_latest_write_is_undone_first(bench: UndoBench) -> None:
    """Each undo is worded from the result of what it undoes."""
    run_id = bench.write("a", "b", "c")

    undo_id = bench.undo(run_id)

    assert RunState.SUCCEEDED is bench.get(undo_id).state
    assert ["3", "2", "1"] == bench.removed()
    assert [("c", None), ("b", None), ("a", None)] == bench.left(undo_id)
    assert ["a", "b", "c"] == bench.names(run_id, EffectState.COMPENSATED)


def test_what_counts_is_when_a_write_was_done_and_not_when_it_was_proposed(
    bench: UndoBench,
) -> None:
    """The first write succeeded at its second attempt, after the other one."""
    bench.outside.answers("keyed", UNKNOWN, created("1"), created("2"))
    run_id = bench.write_at_once(("a", "keyed"), ("b", "keyed"))
    bench.pass_time(run_id)
    late, early = _by_outcome(bench.effects(run_id))

    undo_id = bench.undo(run_id)

    assert (2, 1) == (late.attempt, early.attempt)
    assert [_text(late), _text(early)] == [name for name, _ in bench.left(undo_id)]


def test_an_undo_is_an_effect_of_its_own_and_both_name_each_other(bench: UndoBench) -> None:
    """It has a row, a decision and a step of its own, under the seat of who undoes."""
    [original] = bench.effects(bench.write("a"))

    [undo] = bench.effects(bench.undo(original.run_id))

    assert (original.effect_id, None) == (undo.compensates, undo.compensated_by)
    assert undo.effect_id == bench.effect(original.effect_id).compensated_by
    assert (EffectState.SUCCEEDED, f"undo/{original.effect_id}") == (undo.state, undo.step_name)
    with bench.db.reading() as tx:
        recorded = decisions.list_for_effect(tx, undo.effect_id)
    assert [Outcome.ALLOW] == [r.decision.outcome for r in recorded]


def test_an_undo_leaves_what_was_found_to_be_doubled_meanwhile_with_its_person(
    bench: UndoBench,
) -> None:
    """The undo is recorded; what stands outside is still somebody's to look at."""
    [original] = bench.effects(bench.write("a"))

    def park(_call: Call) -> None:
        bench.outside.on_send = lambda _call: None
        doubled = replace(original, state=EffectState.PARKED, error_code="effect.doubled")
        bench.db.run("parked", lambda tx: effects.move(tx, original, doubled))

    bench.outside.on_send = park
    [undo] = bench.effects(bench.undo(original.run_id))

    now = bench.effect(original.effect_id)
    assert EffectState.SUCCEEDED is undo.state
    assert (EffectState.PARKED, undo.effect_id) == (now.state, now.compensated_by)


def test_an_undo_that_policy_denies_stops_what_is_before_it(sqlite_url: str) -> None:
    """The workflow does not list the undo's tool, so it may not call it."""
    with UndoBench(sqlite_url, undoable(is_listed=False)) as bench:
        run_id = bench.write("a", "b")

        undo_id = bench.undo(run_id)

        [(first, denied), second] = bench.left(undo_id)
        assert ("b", True) == (first, str(denied).startswith("policy."))
        assert ("a", "an effect after it is not undone") == second
        assert [EffectState.DENIED] == [undo.state for undo in bench.effects(undo_id)]
        assert [] == bench.removed()
        assert ["a", "b"] == bench.names(run_id, EffectState.SUCCEEDED)


def test_an_undo_that_was_only_drafted_can_be_tried_again(bench: UndoBench) -> None:
    """At level 0 nothing was sent; at level 3 the next undo does it."""
    run_id = bench.write("a", "b")
    edited = files("http://127.0.0.1:9") | undoable()
    project = {path: text for path, text in edited.items() if text}
    low = project[WORKFLOW_PATH].replace("level: 3", "level: 0")
    bench.apply(project | {WORKFLOW_PATH: low})
    drafts = bench.effects(bench.undo(run_id))
    bench.apply(project)

    undo_id = bench.undo(run_id)

    assert [EffectState.DRAFTED] == [undo.state for undo in drafts]
    assert [("b", None), ("a", None)] == bench.left(undo_id)
    assert ["2", "1"] == bench.removed()


@pytest.mark.parametrize("answer", [None, "abandoned"])
def test_what_has_an_undo_of_unknown_outcome_is_left(bench: UndoBench, answer: str | None) -> None:
    """It may have been undone: a second undo says so and does nothing."""
    bench.outside.answers(REMOVE, UNKNOWN)
    run_id = bench.write("a", "b")
    [first] = bench.effects(bench.undo(run_id))
    if answer is not None:
        bench.settle(first, answer)

    undo_id = bench.undo(run_id)

    [(_, why), blocked] = bench.left(undo_id)
    assert "has another undo, which is open or may have been done" in str(why)
    assert ("a", "an effect after it is not undone") == blocked
    assert RunState.SUCCEEDED is bench.get(undo_id).state
    assert ["2"] == bench.removed()


def test_an_undo_that_failed_stops_what_is_before_it(bench: UndoBench) -> None:
    """It certainly did nothing; the ledger still says that the write stands."""
    bench.outside.answers(REMOVE, said(400))
    run_id = bench.write("a", "b")

    undo_id = bench.undo(run_id)

    [(_, refused), (_, blocked)] = bench.left(undo_id)
    assert "call.refused" in str(refused)
    assert "an effect after it is not undone" == blocked
    assert ["a", "b"] == bench.names(run_id, EffectState.SUCCEEDED)


def test_a_failed_undo_may_be_tried_again_by_another_run(bench: UndoBench) -> None:
    """One that did nothing does not stand in the way of the next."""
    bench.outside.answers(REMOVE, said(400), created())
    run_id = bench.write("a")
    bench.undo(run_id)

    undo_id = bench.undo(run_id)

    assert [("a", None)] == bench.left(undo_id)
    assert ["a"] == bench.names(run_id, EffectState.COMPENSATED)


def test_a_second_undo_finds_nothing_left(bench: UndoBench) -> None:
    """What is compensated is not undone again, nor is an undo."""
    run_id = bench.write("a")
    undo_id = bench.undo(run_id)

    again, of_undo = bench.undo(run_id), bench.undo(undo_id)

    assert [[], []] == [bench.left(again), bench.left(of_undo)]
    assert ["1"] == bench.removed()


def test_an_effect_of_unknown_outcome_stops_what_is_before_it(bench: UndoBench) -> None:
    """What came after it is undone; a person has to settle it before the rest is."""
    run_id = _parked_between(bench)

    undo_id = bench.undo(run_id)

    assert [
        ("after", None),
        ("lost", "its outcome is `parked`"),
        ("before", "an effect after it is not undone"),
    ] == bench.left(undo_id)
    assert 1 == len(bench.removed())


def test_a_settled_effect_no_longer_stops_an_undo(bench: UndoBench) -> None:
    """It was not done, says a person: there is nothing to undo, and the rest is undone."""
    run_id = _parked_between(bench)
    bench.undo(run_id)
    [lost] = [e for e in bench.effects(run_id) if e.state is EffectState.PARKED]
    bench.settle(lost, "absent")

    undo_id = bench.undo(run_id)

    assert [("before", None)] == bench.left(undo_id)


def test_an_undo_of_unknown_outcome_waits_for_a_person(bench: UndoBench) -> None:
    """Nothing earlier is undone before the person has said that it was done."""
    bench.outside.answers(REMOVE, UNKNOWN, created())
    run_id = bench.write("a", "b")
    undo_id = bench.undo(run_id)
    before = bench.removed()

    bench.settle(bench.effects(undo_id)[0], "done")

    assert ["2"] == before
    assert [("b", None), ("a", None)] == bench.left(undo_id)
    assert ["a", "b"] == bench.names(run_id, EffectState.COMPENSATED)


def test_what_declares_no_undo_is_listed_and_stops_nothing(bench: UndoBench) -> None:
    """It is left to people; what came before it is undone."""

    async def body(durable: Segment) -> Json:
        await bench.propose(durable, "a", "keyed")
        await bench.propose(durable, "b", "blind")
        return None

    bench.body = body
    run_id = bench.call("keyed")

    undo_id = bench.undo(run_id)

    assert [("b", "its tool declares no compensation"), ("a", None)] == bench.left(undo_id)


@pytest.mark.parametrize(("hours", "undone"), [(0.99, ["2", "1"]), (1.01, [])])
def test_an_effect_can_be_undone_only_for_the_declared_time(
    bench: UndoBench, hours: float, undone: list[str]
) -> None:
    """Afterwards it is listed with the reason and stops nothing."""
    run_id = bench.write("a", "b")
    bench.clock.advance(hours * 3600)

    undo_id = bench.undo(run_id)

    assert undone == bench.removed()
    why = None if undone else "it was done more than 1 hours ago"
    assert [("b", why), ("a", why)] == bench.left(undo_id)


def test_an_undo_in_time_is_not_too_late_because_people_were_slow(asking: UndoBench) -> None:
    """The time is taken when the undo begins."""
    run_id = asking.write("a", "b")
    asking.clock.advance(50 * 60)
    undo_id = asking.undo(run_id)

    for _ in range(2):
        asking.engine.advance(50 * 60)
        asking.approve(asking.pending()[0])

    assert [("b", None), ("a", None)] == asking.left(undo_id)


def test_an_undo_goes_on_with_its_list_after_a_wait_in_the_middle(asking: UndoBench) -> None:
    """Each undo is approved by people; what is undone by then stays in the list."""
    run_id = asking.write("a", "b", "c")
    undo_id = asking.undo(run_id)
    began = _todo(asking, undo_id)
    removed: list[list[str]] = []

    for _ in range(3):
        assert RunState.WAITING is asking.get(undo_id).state
        [approval] = asking.pending()
        asking.approve(approval)
        removed.append(asking.removed())

    assert [["3"], ["3", "2"], ["3", "2", "1"]] == removed
    assert [("c", None), ("b", None), ("a", None)] == asking.left(undo_id)
    assert began == _todo(asking, undo_id)


def test_an_undo_that_nobody_approves_is_left(asking: UndoBench) -> None:
    """An approval that runs out is a refusal, and stops what is before it."""
    run_id = asking.write("a", "b")
    undo_id = asking.undo(run_id)

    asking.engine.advance(3601)

    [(_, expired), (_, blocked)] = asking.left(undo_id)
    assert str(expired).startswith("approval.expired")
    assert "an effect after it is not undone" == blocked
    assert [] == asking.removed()


@pytest.mark.parametrize("arrange", ["all", "parked", "late", "none declared"])
def test_a_preview_says_what_the_undo_then_does(bench: UndoBench, arrange: str) -> None:
    """Same effects, same order, same reasons; it changes nothing."""
    run_id = _ARRANGED[arrange](bench)
    before = bench.effects(run_id)

    said_before = bench.previewed(run_id)

    assert before == bench.effects(run_id)
    assert bench.get(bench.undo(run_id)).output == said_before


def test_an_irreversible_write_is_not_undone(bench: UndoBench) -> None:
    """Even if a release should name an undo for it."""
    run_id = bench.write("a")
    with bench.db.reading() as tx:
        release = bench.road.live.at(tx).release
        tool = replace(release.tools[ToolName(KEYED)], is_irreversible=True)
        changed = replace(release, tools={**release.tools, tool.name: tool})

        [undo] = preview(tx, changed, run_id)

    assert (False, "its tool declares no compensation") == (undo.is_undone, undo.why)


def test_an_undo_that_cannot_be_worded_is_left(sqlite_url: str) -> None:
    """The result lacks what the undo needs."""
    undo = UNDO.replace("out:/id", "out:/reference")
    with UndoBench(sqlite_url, undoable(undo=undo)) as bench:
        bench.outside.answers("keyed", said(201, {"id": "1"}))
        run_id = bench.write("a", "b")

        undo_id = bench.undo(run_id)

        [(_, unworded), (_, blocked)] = bench.left(undo_id)
        assert "its undo cannot be worded: there is nothing at `/reference`" == unworded
        assert "an effect after it is not undone" == blocked


def _parked_between(bench: UndoBench) -> RunId:
    """Return a cancelled run: a write, one of unknown outcome at the same time, and one after."""

    async def body(durable: Segment) -> Json:
        async def lose() -> Json:
            return (await bench.propose(durable, "lost", "blind")).state

        async def write() -> Json:
            return (await bench.propose(durable, "after", "keyed")).state

        await bench.propose(durable, "before", "keyed")
        await durable.gather([lose, write])
        return None

    bench.outside.answers("keyed", created("1"), UNKNOWN, created("2"))
    bench.outside.answers("blind", UNKNOWN)
    bench.body = body
    run_id = bench.call("keyed")
    for _ in range(3):
        bench.engine.advance(10)
    bench.cancel(run_id)
    return run_id


def _late(bench: UndoBench) -> RunId:
    run_id = bench.write("a")
    bench.clock.advance(7200)
    return run_id


_ARRANGED: dict[str, Callable[[UndoBench], RunId]] = {
    "all": lambda bench: bench.write("a", "b"),
    "parked": _parked_between,
    "late": _late,
    "none declared": lambda bench: bench.write("a", effect_class="blind"),
}


def _by_outcome(found: list[Effect]) -> list[Effect]:
    return sorted(found, key=lambda e: e.outcome_us or 0, reverse=True)


def _text(effect: Effect) -> str:
    return str(effect.arguments["text"])


def _todo(bench: UndoBench, undo_id: RunId) -> Json:
    with bench.db.reading() as tx:
        return journal.load(tx, undo_id)[TODO].value
