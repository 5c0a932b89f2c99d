"""The road end to end, against tools that record what reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.calls import approve, reconcile
from interlock.domain.approval import Approval
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, ForbiddenError, InputError
from interlock.domain.ids import RunId
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.run import RunState
from interlock.store import approvals, decisions
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.road_bench import DANA, RoadBench

WRITES = ("keyed", "conditional", "probed", "blind")
PATH_OF = {
    "keyed": "/keyed/items",
    "conditional": "/conditional/links/",
    "probed": "/probed/items",
    "blind": "/blind/items",
}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path) as running:
        yield running


@pytest.fixture
def bench(recorder: Recorder, sqlite_url: str) -> Iterator[RoadBench]:
    """Run a plane whose writes pass by policy."""
    with RoadBench(sqlite_url, files(recorder.url, timeout_s=1.0)) as running:
        yield running


@pytest.fixture
def asking(recorder: Recorder, sqlite_url: str) -> Iterator[RoadBench]:
    """Run a plane whose writes wait for the group `data-owners`."""
    with RoadBench(sqlite_url, files(recorder.url, approve=True)) as running:
        yield running


@pytest.mark.parametrize("effect_class", ["read", *WRITES])
def test_a_call_of_every_class_is_sent_once_and_recorded(
    bench: RoadBench, recorder: Recorder, effect_class: str
) -> None:
    """The ledger says succeeded and the tool saw one effect (none for a read)."""
    run_id = bench.run(WORKFLOW_OF[effect_class], {"text": "hello"})

    run = bench.get(run_id)
    assert (RunState.SUCCEEDED, None) == (run.state, run.error_message)
    assert [EffectState.SUCCEEDED] == [effect.state for effect in bench.effects(run_id)]
    assert (0 if effect_class == "read" else 1) == len(recorder.log().effects)


@pytest.mark.parametrize("kind", ["hang", "reset", "error", "cut", "schema", "oversized"])
@pytest.mark.parametrize("effect_class", ["keyed", "conditional", "probed"])
def test_an_unknown_outcome_ends_with_one_effect(
    bench: RoadBench, recorder: Recorder, effect_class: str, kind: str
) -> None:
    """Applied but not answered: resent with the key, refused by the guard or found by the probe."""
    recorder.arm(Fault(kind=kind, path=PATH_OF[effect_class], seconds=3.0))  # type: ignore[arg-type]

    run_id = bench.run(WORKFLOW_OF[effect_class], {"text": "hello"})
    _let_time_pass(bench, run_id)

    first = bench.effects(run_id)[0]
    assert EffectState.SUCCEEDED is first.state
    assert 1 == len(recorder.log().effects)


@pytest.mark.parametrize("kind", ["hang", "reset", "error", "cut", "schema"])
def test_a_blind_call_of_unknown_outcome_is_parked_and_never_sent_again(
    bench: RoadBench, recorder: Recorder, kind: str
) -> None:
    """Nothing but a person may say whether it was done."""
    recorder.arm(Fault(kind=kind, path="/blind/items", seconds=3.0))  # type: ignore[arg-type]

    run_id = bench.run(WORKFLOW_OF["blind"], {"text": "hello"})
    bench.engine.advance(3600)

    assert RunState.WAITING is bench.get(run_id).state
    assert [EffectState.PARKED] == [effect.state for effect in bench.effects(run_id)]
    assert 1 == len(_received(recorder, "/blind/items"))


@pytest.mark.parametrize(
    ("answer", "state", "run_state"),
    [
        ("done", EffectState.CONFIRMED_DONE, RunState.SUCCEEDED),
        ("absent", EffectState.CONFIRMED_ABSENT, RunState.FAILED),
        ("abandoned", EffectState.ABANDONED, RunState.FAILED),
    ],
)
def test_a_person_settles_a_parked_effect_and_the_run_goes_on(
    bench: RoadBench, recorder: Recorder, answer: str, state: EffectState, run_state: RunState
) -> None:
    """The answer becomes the effect's state; it is never sent again."""
    recorder.arm(Fault(kind="reset", path="/blind/items"))
    run_id = bench.run(WORKFLOW_OF["blind"], {"text": "hello"})
    effect = bench.effects(run_id)[0]

    reconcile.settle(
        bench.db,
        bench.engine.dispatch,
        effect.effect_id,
        by=DANA,
        answer=answer,  # type: ignore[arg-type]  # the parameter lists the literals
        reason="I looked",
    )
    bench.engine.run_until_idle()

    assert state is bench.effects(run_id)[0].state
    assert run_state is bench.get(run_id).state
    assert 1 == len(_received(recorder, "/blind/items"))


@pytest.mark.parametrize(
    ("effect_class", "attempts"), [("keyed", 4), ("conditional", 4), ("probed", 4), ("blind", 1)]
)
def test_a_refusal_without_effect_is_retried_a_bounded_number_of_times(
    bench: RoadBench, recorder: Recorder, effect_class: str, attempts: int
) -> None:
    """Attempts of one row with the same key, then the step fails for good; a blind one has one."""
    recorder.arm(Fault(kind="refuse", path=PATH_OF[effect_class], count=9))

    run_id = bench.run(WORKFLOW_OF[effect_class], {"text": "hello"})
    _let_time_pass(bench, run_id)

    effect = bench.effects(run_id)[0]
    assert (EffectState.FAILED_DEFINITE, attempts) == (effect.state, effect.attempt)
    assert RunState.FAILED is bench.get(run_id).state
    assert 0 == len(recorder.log().effects)


def test_arguments_that_break_the_contract_are_refused_before_anything_is_sent(
    bench: RoadBench, recorder: Recorder
) -> None:
    """The call is denied with the pointer of what is wrong, and has a row and a decision."""
    run_id = bench.run(WORKFLOW_OF["keyed"], {"text": "x" * 300})

    effect = bench.effects(run_id)[0]
    assert (EffectState.DENIED, "contract.violated") == (effect.state, effect.error_code)
    assert "/text" in str(effect.error_message)
    assert 0 == len(recorder.log().requests)


def test_a_call_without_a_grant_is_denied_with_the_reason(
    recorder: Recorder, sqlite_url: str
) -> None:
    """No policy permits the write, so nothing is sent and the decision says so."""
    project = files(recorder.url)
    del project["policies/grants/recorder.cedar"]
    with RoadBench(sqlite_url, project) as bench:
        run_id = bench.run(WORKFLOW_OF["keyed"], {"text": "hello"})

        effect = bench.effects(run_id)[0]
        assert EffectState.DENIED is effect.state
        assert 0 == len(recorder.log().requests)
        with bench.db.reading() as tx:
            recorded = decisions.list_for_effect(tx, effect.effect_id)
        assert ["deny"] == [d.decision.outcome.value for d in recorded]


def test_a_new_workflow_only_drafts(recorder: Recorder, sqlite_url: str) -> None:
    """At autonomy level 0 a write is stored and shown, and nothing is sent."""
    with RoadBench(sqlite_url, files(recorder.url, level=0)) as bench:
        run_id = bench.run(WORKFLOW_OF["keyed"], {"text": "hello"})

        assert [EffectState.DRAFTED] == [effect.state for effect in bench.effects(run_id)]
        assert 0 == len(recorder.log().requests)


def test_an_approved_call_is_sent_once(asking: RoadBench, recorder: Recorder) -> None:
    """The run waits without a request; the approval lets exactly this call through."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    assert RunState.WAITING is asking.get(run_id).state
    assert 0 == len(recorder.log().requests)

    _answer(asking, _pending(asking, run_id))
    asking.engine.run_until_idle()

    assert RunState.SUCCEEDED is asking.get(run_id).state
    assert 1 == len(recorder.log().effects)


def test_a_rejected_call_is_never_sent(asking: RoadBench, recorder: Recorder) -> None:
    """The reason reaches the run."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})

    approve.answer(
        asking.db,
        asking.engine.dispatch,
        _pending(asking, run_id).approval_id,
        by=DANA,
        answer="reject",
        digest=_pending(asking, run_id).digest,
        reason="not today",
    )
    asking.engine.run_until_idle()

    effect = asking.effects(run_id)[0]
    assert (EffectState.DENIED, "approval.rejected") == (effect.state, effect.error_code)
    assert "not today" in str(effect.error_message)
    assert 0 == len(recorder.log().requests)


def test_an_unanswered_approval_expires_as_a_refusal(asking: RoadBench, recorder: Recorder) -> None:
    """Nobody answered in time, so the call counts as refused."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})

    asking.engine.advance(3601)

    effect = asking.effects(run_id)[0]
    assert (EffectState.DENIED, "approval.expired") == (effect.state, effect.error_code)
    assert 0 == len(recorder.log().requests)


def test_an_approval_works_once(asking: RoadBench) -> None:
    """A second answer is refused, whatever it says."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    approval = _pending(asking, run_id)
    _answer(asking, approval)

    with pytest.raises(ConflictError):
        _answer(asking, approval)


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_a_rejection_needs_a_reason(asking: RoadBench, reason: str | None) -> None:
    """Whichever door it comes by; the approval stays open."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    approval = _pending(asking, run_id)

    with pytest.raises(InputError, match="a rejection needs a reason"):
        approve.answer(
            asking.db,
            asking.engine.dispatch,
            approval.approval_id,
            by=DANA,
            answer="reject",
            digest=approval.digest,
            reason=reason,
        )

    assert approval == _pending(asking, run_id)


def test_an_answer_with_another_digest_is_refused(asking: RoadBench) -> None:
    """Only the call that was shown can be approved."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    approval = _pending(asking, run_id)

    with pytest.raises(ConflictError, match="open the approval again"):
        approve.answer(
            asking.db,
            asking.engine.dispatch,
            approval.approval_id,
            by=DANA,
            answer="approve",
            digest="sha256:other",
        )


@pytest.mark.parametrize(
    "person",
    [
        Principal(name="eve", kind=PrincipalKind.USER, roles=frozenset({Role.APPROVER})),
        Principal(
            name="bot",
            kind=PrincipalKind.SERVICE,
            roles=frozenset({Role.APPROVER}),
            groups=frozenset({"data-owners"}),
        ),
        Principal(
            name="root",
            kind=PrincipalKind.USER,
            roles=frozenset({Role.ADMIN}),
            groups=frozenset({"data-owners"}),
        ),
        Principal(
            name="ops",
            kind=PrincipalKind.USER,
            roles=frozenset({Role.APPROVER}),
            groups=frozenset({"data-owners"}),
        ),
    ],
    ids=["not in the group", "a service", "an admin", "the requester"],
)
def test_the_wrong_person_cannot_approve(asking: RoadBench, person: Principal) -> None:
    """Only a person of the asked group who did not request the call may answer."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    approval = _pending(asking, run_id)

    with pytest.raises(ForbiddenError):
        approve.answer(
            asking.db,
            asking.engine.dispatch,
            approval.approval_id,
            by=person,
            answer="approve",
            digest=approval.digest,
        )


def test_a_changed_policy_voids_the_approval(asking: RoadBench, recorder: Recorder) -> None:
    """The approval was for the call under other rules: it is asked anew."""
    run_id = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    first = _pending(asking, run_id)
    project = files(recorder.url, approve=True)
    project["policies/approvals/more.cedar"] = (
        '@id("more") @approval("platform") @why("A second pair of eyes")\n'
        'forbid (principal, action == Action::"recorder.item.create_keyed", resource);'
    )
    asking.apply(project)
    _answer(asking, first)
    asking.engine.run_until_idle()

    assert RunState.WAITING is asking.get(run_id).state
    with asking.db.reading() as tx:
        pending = approvals.list_open(tx, tenant=DEFAULT_TENANT)
    assert ["data-owners", "platform"] == sorted(a.group for a in pending)
    assert 0 == len(recorder.log().requests)


def test_a_version_that_moves_voids_the_approval(asking: RoadBench, recorder: Recorder) -> None:
    """The call keeps the version that was proposed and is asked anew; later calls have the new."""
    first_run = asking.run(WORKFLOW_OF["keyed"], {"text": "hello"})
    first = _pending(asking, first_run)
    project = files(recorder.url, approve=True)
    path = f"tools/{TOOL_OF['keyed']}.yaml"
    project["tools/newer.yaml"] = (
        project[path].replace("version: 1", "version: 2").replace("title: A", "title: The")
    )
    asking.apply(project)
    _answer(asking, first)
    asking.engine.run_until_idle()
    second_run = asking.run(WORKFLOW_OF["keyed"], {"text": "hello again"})

    assert RunState.WAITING is asking.get(first_run).state
    assert 0 == len(recorder.log().requests)
    again = _pending(asking, first_run)
    assert first.digest != again.digest
    _answer(asking, again)
    asking.engine.run_until_idle()
    assert RunState.SUCCEEDED is asking.get(first_run).state
    assert [1, 2] == [asking.effects(run_id)[0].tool_version for run_id in (first_run, second_run)]


def test_the_same_trigger_key_is_one_run_and_one_effect(
    bench: RoadBench, recorder: Recorder
) -> None:
    """A repeated delivery gets the first run."""
    first = bench.run(WORKFLOW_OF["keyed"], {"text": "hello"}, key="d1")
    second = bench.run(WORKFLOW_OF["keyed"], {"text": "hello"}, key="d1")

    assert first == second
    assert 1 == len(recorder.log().effects)


def _pending(bench: RoadBench, run_id: RunId) -> Approval:
    effect = bench.effects(run_id)[0]
    with bench.db.reading() as tx:
        return approvals.list_for_effect(tx, effect.effect_id)[-1]


def _answer(bench: RoadBench, approval: Approval) -> None:
    approve.answer(
        bench.db,
        bench.engine.dispatch,
        approval.approval_id,
        by=DANA,
        answer="approve",
        digest=approval.digest,
    )


def _received(recorder: Recorder, path: str) -> list[str]:
    return [r.path for r in recorder.log().requests if r.path == path and r.method == "POST"]


def _let_time_pass(bench: RoadBench, run_id: RunId) -> None:
    """Let pauses and quiet times end, as often as a call can need them."""
    for _ in range(30):
        if bench.get(run_id).state.is_final:
            return
        bench.engine.advance(10)
