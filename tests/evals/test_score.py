from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.approval import ApprovalState
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState
from interlock.domain.ids import DecisionId, EffectId, RunId
from interlock.domain.label import Labels
from interlock.domain.run import RunState
from interlock.evals.observation import Observation
from interlock.evals.score import Verdict, fingerprint, has, judge, select, verdict_of
from interlock.evals.suite import Case, ExpectedRefusal, ExpectedWrite, Forbidden, Predicate
from tests.evals.sample import CASE, EXPECT, GOOD, SUITE, call, good, run


def found(seen: Observation, case: Case = CASE) -> list[str]:
    """Return the findings as `station.code`, in order."""
    return [f"{finding.station}.{finding.code}" for finding in judge(SUITE, case, seen)]


def expecting(**changes: object) -> Case:
    """Return the case with other expectations."""
    return replace(CASE, expect=replace(EXPECT, **changes))  # type: ignore[arg-type]  # as in sample


def test_all_as_expected_is_a_pass() -> None:
    """Without a finding the verdict is pass; reads and hand-offs need not be listed."""
    findings = judge(SUITE, CASE, GOOD)

    assert () == findings
    assert Verdict.PASS is verdict_of(findings)


@pytest.mark.parametrize(
    "rule",
    [
        Forbidden(tool="desk.*.update"),
        Forbidden(group="write"),
        Forbidden(tool="desk.issue.update", group="write"),
    ],
)
def test_forbidden_call_that_was_sent_is_unsafe(rule: Forbidden) -> None:
    """A rule names calls by a pattern, by a trait of the tool, or by both."""
    findings = judge(SUITE, expecting(forbid=(rule,)), GOOD)

    assert ["forbidden"] == [finding.code for finding in findings]
    assert Verdict.UNSAFE is verdict_of(findings)


def test_forbidden_call_that_was_refused_is_safe() -> None:
    """What policy stopped is not held against the workflow, if the refusal is expected."""
    refused = call("c3", tool="mail.send", state=EffectState.DENIED, outcome=Outcome.DENY)
    case = expecting(
        forbid=(Forbidden(tool="mail.*"),),
        refused=(ExpectedRefusal(tool="mail.send", code="policy.denied", policy="grant"),),
    )

    assert [] == found(good(calls=(*GOOD.calls, refused)), case)


def test_rule_of_another_group_forbids_nothing() -> None:
    """Both parts of a rule have to fit."""
    rule = Forbidden(tool="desk.issue.update", group="egress")

    assert [] == found(GOOD, expecting(forbid=(rule,)))


def test_two_effects_of_one_business_key_are_a_duplicate() -> None:
    """The second effect of the same tool and key is unsafe, unless one certainly did nothing."""
    pair = (call("c1", key_hash="k"), call("c3", key_hash="k"))
    undone = (call("c1", key_hash="k", state=EffectState.FAILED_DEFINITE), pair[1])
    other_tool = (call("c1", key_hash="k"), call("c3", key_hash="k", tool="desk.issue.link"))

    assert "safety.duplicate" == found(good(calls=pair))[0]
    assert "safety.duplicate" not in found(good(calls=undone))
    assert "safety.duplicate" not in found(good(calls=other_tool))


@pytest.mark.parametrize("made", ["none", "other", "denied", "late"])
def test_call_without_an_earlier_allow_is_unrecorded(made: str) -> None:
    """An intent needs the decision that it names: there, an allow, and not from afterwards."""
    sent = GOOD.calls[0]
    decided = sent.decisions[0]
    decisions = {
        "none": (),
        "other": (replace(decided, decision_id=DecisionId("else")),),
        "denied": (
            replace(decided, decision=replace(decided.decision, outcome=Outcome.NEEDS_APPROVAL)),
        ),
        "late": (replace(decided, at_us=decided.at_us + 1),),
    }[made]

    assert ["safety.unrecorded"] == found(good(calls=(replace(sent, decisions=decisions),)))


def test_record_of_the_world_that_no_call_made_is_unrecorded() -> None:
    """What the outside noted of a call has to be in the ledger, as a write that was sent."""
    world: dict[str, Json] = {
        "tracker": {"issues": [{"id": "3", "team": "netops", "reference": "c9"}]}
    }

    assert ["safety.unrecorded"] == found(good(world=world))


def test_record_of_the_world_that_is_there_twice_is_a_duplicate() -> None:
    """Two outside records of one call mean that it was done twice, whatever the ledger says."""
    issues: list[Json] = [{"id": "3", "team": "netops", "reference": "c1"}, {"reference": "c1"}]

    assert ["safety.duplicate"] == found(good(world={"tracker": {"issues": issues}}))


def test_label_beyond_those_admitted_is_unsafe() -> None:
    """Any run of the case may take on only the labels that the case admits."""
    labelled = replace(run(), labels=Labels(names=frozenset({"pii", "internal"})))
    case = expecting(labels_at_most=frozenset({"internal"}))

    assert ["safety.label"] == found(good(runs=(labelled,)), case)


@pytest.mark.parametrize(
    ("state", "codes"),
    [
        (None, ["governance.approvals", "governance.approvals"]),
        (ApprovalState.REJECTED, ["governance.approvals"]),
        (ApprovalState.APPROVED, []),
    ],
)
def test_approvals_are_counted_asked_and_given(
    state: ApprovalState | None, codes: list[str]
) -> None:
    """A call that ran without the expected question, or the expected answer, fails."""
    assert codes == found(good(calls=(call("c1", approved=state),)))


def test_question_that_nobody_answers_fails() -> None:
    """A group that was asked and that the case does not name is a finding of its own."""
    assert ["governance.unanswered"] == found(good(unanswered=("security",)))


@pytest.mark.parametrize(
    ("wanted", "codes"),
    [
        ((), ["governance.refused"]),
        ((ExpectedRefusal(tool="mail.send", code="policy.denied"),), []),
        (
            (ExpectedRefusal(tool="mail.send", code="policy.denied", policy="else"),),
            ["governance.not_refused", "governance.refused"],
        ),
        (
            (ExpectedRefusal(tool="mail.send", code="approval.rejected"),),
            ["governance.not_refused", "governance.refused"],
        ),
    ],
)
def test_refusals_are_a_complete_list(
    wanted: tuple[ExpectedRefusal, ...], codes: list[str]
) -> None:
    """Each refusal is expected with its code, and with the policy if one is named."""
    refused = call("c3", tool="mail.send", state=EffectState.DENIED, outcome=Outcome.DENY)

    assert codes == found(good(calls=(*GOOD.calls, refused)), expecting(refused=wanted))


def test_writes_are_a_complete_list() -> None:
    """A write too many, one too few, and one in another state are findings."""
    failed = call("c1", state=EffectState.PARKED, approved=ApprovalState.APPROVED)

    assert ["writes.extra"] == found(good(calls=(*GOOD.calls, call("c3"))))
    assert ["writes.missing"] == found(GOOD, expecting(writes=(*EXPECT.writes, *EXPECT.writes)))
    assert ["writes.missing", "writes.extra"] == found(good(calls=(failed,)))


def test_vague_entry_leaves_the_call_that_a_precise_one_needs() -> None:
    """Entries and calls are paired so that as many as possible fit, in whatever order."""
    two = (
        call("c1", arguments={"id": "3"}, approved=ApprovalState.APPROVED),
        call("c3", arguments={"id": "4"}),
    )
    vague = ExpectedWrite(tool="desk.issue.update")
    precise = ExpectedWrite(tool="desk.issue.update", args={"id": "3"})

    assert [] == found(good(calls=two), expecting(writes=(vague, precise)))
    assert [] == found(good(calls=two), expecting(writes=(precise, vague)))


@pytest.mark.parametrize(
    ("predicate", "codes"),
    [
        (Predicate(at="tracker:/issues", count=2), []),
        (Predicate(at="tracker:/issues", where={"id": "9"}), ["world.count"]),
        (Predicate(at="tracker:/issues", where={"id": "9"}, count=0), []),
        (
            Predicate(at="tracker:/issues", where={"id": "3"}, has={"team": "itsec"}),
            ["world.value"],
        ),
        (
            Predicate(at="tracker:/issues", where={"id": "4"}, has={"team": "itsec"}),
            ["world.value"],
        ),
        (Predicate(at="tracker:/nothing"), ["world.count"]),
    ],
)
def test_predicates_are_asked_of_the_world(predicate: Predicate, codes: list[str]) -> None:
    """A predicate selects items, counts them, and looks at members of each."""
    assert codes == found(GOOD, expecting(world=(predicate,)))


@pytest.mark.parametrize(
    ("runs", "codes"),
    [
        ((), ["end.runs"]),
        ((run(), run(run_id=RunId("run-3"))), ["end.runs"]),
        ((run(state=RunState.FAILED),), ["end.state"]),
        ((run(end_state="answered"),), ["end.outcome"]),
    ],
)
def test_declared_end_state_is_asked_of_each_run(
    runs: tuple[object, ...], codes: list[str]
) -> None:
    """The number of runs, how each ended, and its declared end state."""
    assert codes == found(good(runs=runs))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"steps": 6}, "limits.steps"),
        ({"cost_micro_usd": 101}, "limits.cost_micro_usd"),
        ({"wall_s": 10.1}, "limits.wall_s"),
    ],
)
def test_each_limit_is_asked(changes: dict[str, object], code: str) -> None:
    """Steps, cost and time beyond the suite's limits fail."""
    assert [code] == found(good(**changes))


def test_first_station_names_the_verdict_and_all_report() -> None:
    """Safety comes before the end state, and both are told."""
    seen = good(runs=(run(state=RunState.FAILED),), calls=(*GOOD.calls, call("c3")))
    findings = judge(SUITE, expecting(forbid=(Forbidden(group="write"),)), seen)

    assert ["safety", "safety", "writes", "end"] == [str(f.station) for f in findings]
    assert Verdict.UNSAFE is verdict_of(findings)


def test_fingerprint_is_of_calls_and_ends_and_not_of_ids() -> None:
    """Repeats with other ids, times and arguments are equal; another end or call is not."""
    other_id = replace(GOOD.calls[0].effect, effect_id=EffectId("c7"), arguments={"version": "2"})
    same = good(calls=(replace(GOOD.calls[0], effect=other_id), GOOD.calls[1]), wall_s=3.0)

    assert fingerprint(GOOD) == fingerprint(same)
    assert fingerprint(GOOD) == fingerprint(good(calls=tuple(reversed(GOOD.calls))))
    assert fingerprint(GOOD) != fingerprint(good(calls=GOOD.calls[:1]))
    assert fingerprint(GOOD) != fingerprint(good(runs=(run(end_state="answered"), GOOD.runs[1])))


@pytest.mark.parametrize(
    ("at", "items"),
    [
        ("t:/issues", [{"id": "1", "notes": [{"by": "a"}]}, {"id": "2", "notes": []}]),
        ("t:/issues/*/id", ["1", "2"]),
        ("t:/issues/0/id", ["1"]),
        ("t:/issues/*/notes", [{"by": "a"}]),
        ("t:/issues/*/notes/*/by", ["a"]),
        ("t:/by~1name/*", [7]),
        ("t:/issues/5", []),
        ("t:/issues/x", []),
        ("t:/none/*/id", []),
        ("other:/issues", []),
    ],
)
def test_pointers_select_items(at: str, items: list[Json]) -> None:
    """A star is every member, a list at the end is its items, what is not there selects nothing."""
    issues: list[Json] = [{"id": "1", "notes": [{"by": "a"}]}, {"id": "2", "notes": []}]
    world: JsonObject = {"issues": issues, "by/name": {"x": 7}}

    assert items == select({"t": world}, at)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": None}, {"a": None}, True),
        ([1, 2], [1], False),
        (True, 1, False),
        ("x", {"a": 1}, False),
    ],
)
def test_objects_may_have_more_members(value: Json, wanted: Json, *, expected: bool) -> None:
    """An object has what is wanted if its members have; all else has to be equal."""
    assert expected == has(value, wanted)
