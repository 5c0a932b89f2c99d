"""The autonomy ladder: earned by evidence, signed by two people, lost with the cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from interlock.domain.autonomy import rung_key
from interlock.domain.effect import EffectState
from interlock.domain.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    InterlockError,
    NotFoundError,
)
from interlock.domain.ids import EffectId, TenantId, WorkflowName
from interlock.domain.ladder import versions_of
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.manifest import apply
from interlock.runtime.registry import ladder as climb
from interlock.store import ladder, registry, results, reviews
from interlock.store.tx import Tx
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.calls.call_bench import UNKNOWN, found
from tests.road_bench import DANA
from tests.runtime.registry.ladder_bench import ANN, BOB, DAY_S, KEYED, PROD, Ladder


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[Ladder]:
    """Run the plane."""
    with Ladder(sqlite_url) as running:
        yield running


@pytest.fixture
def anywhere(database_url: str) -> Iterator[Ladder]:
    """Run the plane on either kind of database."""
    with Ladder(database_url) as running:
        yield running


def refusal(error: type[InterlockError], act: Callable[[], object]) -> str:
    """Return what is said to who may not."""
    with pytest.raises(error) as caught:
        act()
    return caught.value.message


def test_a_new_workflow_only_drafts_and_shows_what_is_missing(bench: Ladder) -> None:
    """Nothing is sent, and each thing that is missing is a sentence."""
    bench.calls(2)

    found = bench.found()

    assert (0, 0, 1) == (bench.outside.count("keyed"), found.level, found.step)
    assert (2, 0, 2) == (found.done, found.judged, len(found.reviews))
    assert [
        "0 of 3 drafts are there",
        "people left 0 of 0 as they were: at least 0.00 of all, and 0.40 is needed",
        "no suite was passed by exactly these versions",
    ] == [*found.missing]
    refused = refusal(ConflictError, lambda: bench.sign(ANN))
    assert refused.startswith("level 1 is not earned: 0 of 3 drafts are there; ")


def test_each_level_is_earned_and_counts_at_the_next_call(anywhere: Ladder) -> None:
    """Drafts, then approved writes, then unattended ones; each step by two people."""
    (draft,) = anywhere.calls(1)
    anywhere.climb_to(1)
    (asked,) = anywhere.calls(1)
    anywhere.answer("approve", asked)
    anywhere.climb_to(2)
    (written,) = anywhere.calls(1)
    anywhere.climb_to(3)

    states = [anywhere.effect(one).state for one in (draft, asked, written)]
    assert [EffectState.DRAFTED, EffectState.SUCCEEDED, EffectState.SUCCEEDED] == states
    assert 3 == anywhere.level
    assert ("it is at level 3, the highest",) == anywhere.found().missing
    with anywhere.db.reading() as tx:
        told = ladder.history(tx, KEYED, PROD)
        assert ["sue", "ann"] == [
            registry.list_releases(tx)[0].applied_by,
            registry.list_releases(tx)[0].asked_by,
        ]
    assert [(2, 3), (1, 2), (0, 1)] == [(change.before, change.after) for change in told]
    assert {("ann", "sue", "it does well")} == {
        (change.by, change.confirmed_by, change.reason) for change in told
    }
    evidence = told[1].evidence
    assert evidence is not None
    assert ("approved writes", 4) == (evidence["kind"], evidence["agreed"])


def test_one_person_alone_raises_nothing(bench: Ladder) -> None:
    """Not twice either, nor a day apart; the second person finds the evidence met or is refused."""
    bench.earn(1)
    first, again = bench.sign(ANN), bench.sign(ANN)
    bench.clock.advance(DAY_S + 1)
    late = bench.sign(BOB)
    bench.judge("fail", "other")

    assert all(each.change is None for each in (first, again, late))
    assert "the suite `other` was not passed" in refusal(ConflictError, lambda: bench.sign(ANN))
    assert 0 == bench.level


def test_only_people_sign_and_the_highest_level_takes_security(bench: Ladder) -> None:
    """A service may lower, never raise."""
    robot = replace(ANN, name="robot", kind=PrincipalKind.SERVICE)
    bench.climb_to(2)
    bench.earn(3)
    bench.sign(ANN)

    assert "`robot` is not a person" in refusal(ForbiddenError, lambda: bench.sign(robot))
    assert "of the team `security`" in refusal(ForbiddenError, lambda: bench.sign(BOB))
    assert 2 == bench.level


def test_days_count_from_the_first_write(bench: Ladder) -> None:
    """Many writes of one day show little."""
    bench.climb_to(1)
    bench.judge()
    for effect_id in bench.calls(3):
        bench.answer("approve", effect_id)

    assert ("the first is 0.0 days old, and 14 are needed",) == bench.found().missing


def test_reviews_are_made_in_order_by_who_owns_the_workflow(bench: Ladder) -> None:
    """Nobody chooses what is looked at; who disagrees says why, and asked people stay out."""
    bench.calls(2)
    first, second = bench.found().reviews

    def review(effect_id: EffectId, by: Principal, note: str | None = None) -> Callable[[], object]:
        return lambda: climb.review(bench.db, effect_id, by=by, is_agreed=False, note=note)

    stranger = replace(BOB, groups=frozenset({"others"}))
    reader = replace(BOB, roles=frozenset({Role.OPERATOR}))
    assert "a note" in refusal(InputError, review(first, BOB))
    assert f"the next one is `{first}`" in refusal(ConflictError, review(second, BOB, "no"))
    assert "not of `platform`" in refusal(ForbiddenError, review(first, stranger, "no"))
    assert "not an approver" in refusal(ForbiddenError, review(first, reader, "no"))
    own = replace(BOB, name="ops")
    assert "asked for this call" in refusal(ForbiddenError, review(first, own, "no"))
    other = replace(BOB, tenant=TenantId("other"))
    assert "there is no call" in refusal(NotFoundError, review(first, other, "no"))

    review(first, BOB, "wrong text")()

    assert "is not up for review" in refusal(ConflictError, review(first, BOB, "no"))
    assert (1, 0) == (bench.found().judged, bench.found().agreed)


def test_a_ceiling_is_not_passed_and_lowers_what_is_above(bench: Ladder) -> None:
    """It stands in the workflow's file."""
    bench.climb_to(2)
    path = f"workflows/{KEYED}.yaml"
    bench.apply(bench.project | {path: bench.project[path] + "ceiling: {dev: 1}\n"})

    assert 1 == bench.level
    assert "the workflow's file sets the ceiling 1 for `prod`" == bench.found().missing[0]


@pytest.mark.parametrize(("is_judged", "level"), [(False, 1), (True, 2)])
def test_what_acts_in_another_way_keeps_its_level_only_with_a_passed_suite(
    bench: Ladder, level: int, *, is_judged: bool
) -> None:
    """Else it is at 1 at most; in both cases its evidence is counted anew."""
    bench.climb_to(2)
    path = f"workflows/{KEYED}.yaml"
    changed = bench.project[path].replace("version: 1", "version: 2")
    files = bench.project | {path: changed.replace("One keyed call", "One keyed call more")}
    if is_judged:
        planned = apply.plan(bench.db, bench.moved(files, bench.bars)).release
        versions = (versions_of(planned, KEYED, PROD),)
        put = partial(results.put_result, suite="golden", suite_digest="d", release=0, body={})
        bench.db.run("r", lambda tx: put(tx, verdict="pass", workflow=KEYED, versions=versions))
    bench.apply(files)

    assert (level, 0) == (bench.level, bench.found().done)


def test_another_workflow_that_changes_takes_nothing_away(bench: Ladder) -> None:
    """A level is that of the workflow's own versions."""
    bench.climb_to(1)
    path = f"workflows/{WORKFLOW_OF['blind']}.yaml"
    changed = bench.project[path].replace("version: 1", "version: 2")

    bench.apply(bench.project | {path: changed.replace("One blind call", "Another")})

    assert (1, 3) == (bench.level, bench.found().counted_from and 3)


def test_a_person_lowers_at_once(bench: Ladder) -> None:
    """The next call feels it; who is not above is told so."""
    bench.climb_to(2)
    change = climb.demote(bench.db, KEYED, PROD, level=0, by=DANA, reason="case 4711")
    (draft,) = bench.calls(1)

    assert (2, 0, "dana", "case 4711") == (change.before, change.after, change.by, change.reason)
    assert EffectState.DRAFTED is bench.effect(draft).state
    lower = partial(climb.demote, bench.db, KEYED, PROD, level=1, by=DANA, reason="again")
    assert "is not above level 1" in refusal(ConflictError, lower)


def test_a_failed_suite_lowers_what_it_judged(anywhere: Ladder) -> None:
    """In the transaction that stores the result; one of other versions changes nothing."""
    anywhere.climb_to(2)
    versions = ("sha256:" + "0" * 64,)
    put = partial(results.put_result, suite="golden", suite_digest="d", release=0, body={})
    anywhere.db.run("r", lambda tx: put(tx, verdict="fail", workflow=KEYED, versions=versions))
    untouched = anywhere.level
    anywhere.judge("fail")

    assert (2, 1) == (untouched, anywhere.level)


def test_a_quarantined_tool_lowers_who_calls_it(bench: Ladder) -> None:
    """Nobody else; what happened stands in the history."""
    bench.climb_to(2)
    bad = {f"{TOOL_OF['keyed']}@{PROD}": "its server changed"}

    bench.db.run(
        "q", lambda tx: (registry.quarantine(tx, bad, by="t"), ladder.quarantined(tx, bad))
    )

    with bench.db.reading() as tx:
        (last, *_) = ladder.history(tx, KEYED, PROD)
    assert (2, 1, "interlock") == (last.before, last.after, last.by)
    assert f"`{TOOL_OF['keyed']}@prod`" in last.reason


def test_a_boundary_that_denies_again_and_again_lowers(anywhere: Ladder) -> None:
    """Three denials within an hour; two, or three on other days, are none of it."""
    anywhere.climb_to(2)
    path = "systems/recorder.yaml"
    anywhere.apply(anywhere.project | {path: anywhere.project[path] + "tenant: others\n"})
    levels = []
    for pause_s in (0, 7_200, 10, 10):
        anywhere.clock.advance(pause_s)
        anywhere.calls(1)
        levels.append(anywhere.level)

    assert [2, 2, 2, 1] == levels


def test_people_who_refuse_too_often_lower_by_one(
    bench: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last writes too few were left as they were."""
    monkeypatch.setattr(reviews, "LAST", 4)
    bench.climb_to(1)
    levels = []
    for word in ("approve", "reject", "reject", "reject"):
        (asked,) = bench.calls(1)
        bench.answer(word, asked)
        levels.append(bench.level)

    assert [1, 1, 1, 0] == levels


def test_a_doubled_write_lowers(bench: Ladder) -> None:
    """Found by the probe that finds two of them."""
    bench.climb_to(2)
    probed = WorkflowName(WORKFLOW_OF["probed"])
    bench.outside.answers("probed", UNKNOWN)
    bench.outside.answers("read", found("1", "2"))
    raise_to_two(bench, probed)
    run_id = bench.call("probed")
    bench.pass_time(run_id)

    with bench.db.reading() as tx:
        assert 1 == bench.road.live.at(tx).release.level(probed, PROD)
        (last, *_) = ladder.history(tx, probed, PROD)
    assert EffectState.PARKED is bench.one(run_id).state
    assert f"it did `{TOOL_OF['probed']}` twice" == last.reason


def raise_to_two(bench: Ladder, workflow: WorkflowName) -> None:
    """Put a workflow at level 2 without evidence."""
    key = rung_key(workflow, PROD)

    def lift(tx: Tx) -> None:
        rung = bench.road.live.at(tx).release.ladder[key]
        ladder.lift(tx, key, replace(rung, level=2), evidence={})

    bench.db.run("lift", lift)


def test_going_back_to_an_older_tool_takes_one_person_and_lowers(bench: Ladder) -> None:
    """What acts then was not judged, though it was live before."""
    bench.climb_to(2)
    path = f"tools/{TOOL_OF['keyed']}.yaml"
    newer = bench.project[path].replace("version: 1", "version: 2").replace("A keyed", "The keyed")
    before = dict(bench.project)
    bench.apply(before | {path: newer})
    lowered = bench.level
    candidate = apply.plan(bench.db, bench.moved(before, bench.bars)).release
    with bench.db.reading() as tx:
        assert apply.goes_back(tx, candidate)
    bench.apply(before)

    assert (1, 1) == (lowered, bench.level)


def test_nothing_is_earned_in_dev_or_where_a_workflow_has_no_tools(bench: Ladder) -> None:
    """Each is told in a sentence."""
    with bench.db.reading() as tx:
        release = bench.road.live.at(tx).release
        declared = refusal(InputError, lambda: climb.evidence_of(tx, release, KEYED, "dev"))
        nowhere = refusal(NotFoundError, lambda: climb.evidence_of(tx, release, KEYED, "stage"))

    assert "in `dev` the workflow's file declares the level" in declared
    assert f"there is no workflow `{KEYED}` with a tool in `stage`" == nowhere
