"""Releases, traces, content, lineage, blackboard, results and keys: what is kept for people."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from interlock.domain.agent import AgentSpec
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, NotFoundError
from interlock.domain.ids import AgentName, EffectId, RunId, TenantId
from interlock.domain.label import Labels
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.release import PolicyFile, Release
from interlock.domain.touch import Touch
from interlock.domain.trace import ModelUse, Span, SpanKind, SpanStatus
from interlock.domain.workflow import FailureMode, Step, Success, Trigger, WorkflowSpec
from interlock.store import (
    blackboard,
    bodies,
    effects,
    keys,
    registry,
    results,
    spans,
    touches,
    upstreams,
)
from interlock.store.blackboard import Note
from interlock.store.engine import Database
from interlock.store.keys import ApiKey, Session
from interlock.store.registry import AppliedRelease
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import (
    HOUR_US,
    SECOND_US,
    TENANT,
    WORKFLOW,
    intent,
    running,
)

ROOT, RUN = RunId("root"), RunId("run-1")
ADA = Principal(
    name="ada",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER, Role.VIEWER}),
    groups=frozenset({"leads", "owners"}),
)


def project() -> Release:
    """Return a release with an agent, a workflow and a policy."""
    name = AgentName("resolver")
    agent = AgentSpec(
        name=name,
        version=1,
        title="Resolver",
        owner="it",
        sponsor="grace",
        instructions="Resolve it.",
        output_schema={"type": "object", "properties": {"n": {"type": "number", "minimum": 0.5}}},
    )
    workflow = WorkflowSpec(
        name=WORKFLOW,
        version=3,
        title="Triage",
        owner="it",
        department="it",
        triggers=(Trigger(name="desk", kind="webhook", source="desk", input={"id": "body:/id"}),),
        input_schema={"type": "object"},
        seats=(),
        steps=(Step(name="resolve", agent=name, input=["input:", None, 1.5]),),
        failure_modes=(FailureMode(code="*", then="stop"),),
        success=Success(end_state="done", end_states=("done",), objective=0.9, within_s=60.0),
    )
    return Release(
        agents={name: agent},
        workflows={WORKFLOW: workflow},
        policies=(PolicyFile(path="grants/triage.cedar", text="permit(principal, ...);"),),
        labels=("pii",),
        teams=("it",),
        quarantine={"desk.issue.create@dev": "changed"},
    )


def test_each_apply_makes_the_next_release(db: Database, clock: ManualClock) -> None:
    """Releases count from 1, the last one is live, each comes back as it was applied."""
    with db.reading() as tx:
        before = registry.live_number(tx)
    first = db.run("apply", lambda tx: registry.put_release(tx, project(), by="ada"))
    clock.advance(1)

    second = db.run("apply", lambda tx: registry.put_release(tx, Release(), by="linus"))

    assert (0, replace(project(), number=1), Release(number=2)) == (before, first, second)
    with db.reading() as tx:
        assert 2 == registry.live_number(tx)
        assert first == registry.get_release(tx, 1)
        assert [
            AppliedRelease(
                number=2,
                digest=registry.digest_of(Release()),
                applied_by="linus",
                applied_us=START_US + SECOND_US,
            ),
            AppliedRelease(
                number=1,
                digest=registry.digest_of(first),
                applied_by="ada",
                applied_us=START_US,
            ),
        ] == registry.list_releases(tx)
        with pytest.raises(NotFoundError, match="`3`"):
            registry.get_release(tx, 3)


def test_of_two_applies_at_once_none_is_lost(db: Database) -> None:
    """Two applies that race get numbers 1 and 2, or the second is told to plan again."""

    def apply(tx: Tx) -> int:
        try:
            return registry.put_release(tx, Release(), by="x").number
        except ConflictError:
            return 0

    assert sorted(both(db, apply)) in ([1, 2], [0, 1])


def span(key: str, *, start_us: int = START_US) -> Span:
    """Return an open span."""
    return Span(
        run_id=RUN,
        key=key,
        parent_key=None if key == "root" else "root",
        kind=SpanKind.TOOL,
        name="execute_tool x",
        start_us=start_us,
        effect_id=EffectId("e1"),
        attributes={"gen_ai.tool.name": "x"},
    )


def put(db: Database, *written: Span) -> None:
    """Write spans."""
    with db.transaction("span") as tx:
        for each in written:
            spans.put(tx, each)


def listed(db: Database) -> list[Span]:
    """Return the spans of the run."""
    with db.reading() as tx:
        return spans.list_for_run(tx, RUN)


def test_spans_keep_the_order_of_their_first_write(db: Database) -> None:
    """A later form of a span replaces the earlier one in its place; the first start counts."""
    put(db, span("root"), span("b"), span("a"))

    put(db, replace(span("root", start_us=START_US + 9), name="newer", cost_micro_usd=7))

    newer = replace(span("root"), name="newer", cost_micro_usd=7)
    assert [newer, span("b"), span("a")] == listed(db)


def test_closed_span_is_not_opened_again(db: Database) -> None:
    """Replay that passes the start again changes nothing; another end does."""
    closed = replace(span("root"), end_us=START_US + 5, attributes={"n": 1})
    put(db, span("root"), closed)

    put(db, span("root"))
    after_replay = listed(db)
    put(db, replace(closed, end_us=START_US + 6))

    assert ([closed], [replace(closed, end_us=START_US + 6)]) == (after_replay, listed(db))


def test_closing_adds_to_a_span(db: Database) -> None:
    """`close` sets end, status, error and cost, and adds attributes to those there."""
    put(db, span("root"))

    with db.transaction("close") as tx:
        spans.close(
            tx,
            RUN,
            "root",
            end_us=START_US + 5,
            status=SpanStatus.ERROR,
            error_code="x.y",
            cost_micro_usd=3,
            attributes={"n": 2},
        )
        with pytest.raises(NotFoundError, match="`b`"):
            spans.close(tx, RUN, "b", end_us=1, status=SpanStatus.OK)

    expected = replace(
        span("root"),
        end_us=START_US + 5,
        status=SpanStatus.ERROR,
        error_code="x.y",
        cost_micro_usd=3,
        attributes={"gen_ai.tool.name": "x", "n": 2},
    )
    assert [expected] == listed(db)


def test_cost_of_a_tree_is_models_and_calls(db: Database) -> None:
    """The sum goes over the root and its children; a repeated model use replaces the first."""
    root = running(db)
    child = running(db, "k2", parent=root)
    use = ModelUse(
        run_id=root.run_id,
        span_key="a/1/model",
        provider="openai",
        model="m",
        input_tokens=10,
        output_tokens=2,
        cost_micro_usd=99,
        price_version="v1",
        is_estimated=False,
        at_us=START_US,
    )
    with db.transaction("cost") as tx:
        spans.put_model_use(tx, use)
        spans.put_model_use(tx, replace(use, cost_micro_usd=100))
        spans.put_model_use(tx, replace(use, run_id=child.run_id, cost_micro_usd=20))
        spans.put_model_use(tx, replace(use, run_id=RunId("foreign"), cost_micro_usd=7))
        effects.insert(tx, replace(intent(child.run_id), cost_micro_usd=3))

    with db.reading() as tx:
        costs = [spans.cost_of_tree(tx, run_id) for run_id in (root.run_id, ROOT)]

    assert [123, 0] == costs


def test_content_is_kept_by_span_and_part(db: Database) -> None:
    """Content comes back by span and part; the same part again replaces it."""
    with db.transaction("body") as tx:
        bodies.put(tx, RUN, "b", "result", "plain text")
        bodies.put(tx, RUN, "a", "result", {"n": 1})
        bodies.put(tx, RUN, "a", "result", None)
        bodies.put(tx, ROOT, "a", "result", 1)

    with db.reading() as tx:
        found = bodies.list_for_run(tx, RUN)

    assert [("a", "result", None), ("b", "result", "plain text")] == [
        (each.span_key, each.part, each.content) for each in found
    ]
    assert all(each.digest.startswith("sha256:") for each in found)


def test_record_knows_who_touched_it(db: Database) -> None:
    """The touches of one record newest first, those of one run oldest first, none twice."""
    first = Touch(
        tenant=TENANT,
        run_id=RUN,
        effect_id=EffectId("e1"),
        system="desk",
        type="issue",
        external_id="7",
        mode="create",
        at_us=1,
        after="sha256:a",
    )
    second = replace(first, mode="delete", at_us=2, after=None)
    other = replace(first, external_id="8", at_us=3)
    with db.transaction("touch") as tx:
        for touch in (first, second, other, first):
            touches.put(tx, touch)

    with db.reading() as tx:
        of_record = touches.list_for_record(
            tx, TENANT, system="desk", kind="issue", external_id="7"
        )
        of_run = touches.list_for_run(tx, RUN)

    assert ([second, first], [first, second, other]) == (of_record, of_run)


def write(tx: Tx, value: int, expected_version: int) -> int:
    """Write a value on the blackboard."""
    return blackboard.write(
        tx,
        ROOT,
        "plan",
        value,
        expected_version=expected_version,
        labels=Labels(names=frozenset({"pii"})),
        writer="triage/resolver",
        run_id=RUN,
    )


def test_blackboard_keeps_every_version(db: Database) -> None:
    """The newest version is read, with labels and writer; history has all."""
    with db.reading() as tx:
        before = blackboard.read(tx, ROOT, "plan")
    for n in range(2):
        db.run("write", lambda tx, n=n: write(tx, n, n))  # type: ignore[misc]

    with db.reading() as tx:
        newest = blackboard.read(tx, ROOT, "plan")
        history = blackboard.history(tx, ROOT, "plan")
        of_all = blackboard.history(tx, ROOT)

    second = Note(
        root_id=ROOT,
        key="plan",
        version=2,
        value=1,
        labels=Labels(names=frozenset({"pii"})),
        writer="triage/resolver",
        run_id=RUN,
        at_us=START_US,
    )
    assert (None, second) == (before, newest)
    assert [replace(second, version=1, value=0), second] == history == of_all


@pytest.mark.parametrize("expected_version", [0, 2])
def test_blackboard_refuses_writers_that_did_not_read(db: Database, expected_version: int) -> None:
    """A write that expects another version than the newest is a conflict."""
    db.run("write", lambda tx: write(tx, 1, 0))

    with pytest.raises(ConflictError, match="read it again"):
        db.run("write", lambda tx: write(tx, 2, expected_version))


def test_of_two_blackboard_writers_one_wins(db: Database) -> None:
    """Two writers that both saw the same version: one of them is told to read again."""

    def work(tx: Tx) -> int:
        try:
            return write(tx, 1, 0)
        except ConflictError:
            return 0

    assert {0, 1} == set(both(db, work))


def test_latest_result_of_a_suite(db: Database, clock: ManualClock) -> None:
    """The newest result counts; a suite that never ran has none."""

    def put_result(tx: Tx) -> results.SuiteResult:
        return results.put_result(
            tx,
            suite="s",
            suite_digest="d",
            release=1,
            body={"score": 0.5},
            verdict="pass",
            workflow="triage",
            versions=("v1", "v2"),
        )

    db.run("result", put_result)
    clock.advance(1)
    second = db.run("result", put_result)

    with db.reading() as tx:
        assert second == results.latest_result(tx, "s")
        assert results.latest_result(tx, "other") is None


def add_key(db: Database, secret_hash: str = "h1", expires_us: int | None = None) -> str:
    """Store a key of ada's and return its id."""
    return db.run(
        "key",
        lambda tx: keys.put_key(tx, ADA, secret_hash=secret_hash, by="root", expires_us=expires_us),
    )


def test_key_is_found_by_its_hash_while_it_works(db: Database, clock: ManualClock) -> None:
    """A key works until it expires or is revoked; it stays in the list."""
    forever = add_key(db)
    for_an_hour = add_key(db, "h2", START_US + HOUR_US)
    with db.reading() as tx:
        found = [keys.find_key(tx, secret_hash) for secret_hash in ("h1", "h2", "h3")]

    clock.advance(3600)
    with db.transaction("revoke") as tx:
        expired = keys.find_key(tx, "h2")
        revoked = [keys.revoke_key(tx, forever) for _ in range(2)]
        gone = keys.find_key(tx, "h1")
        all_keys = keys.list_keys(tx, tenant=TENANT)
        foreign = keys.list_keys(tx, tenant=TenantId("other"))

    first = ApiKey(key_id=forever, principal=ADA, created_us=START_US, created_by="root")
    second = replace(first, key_id=for_an_hour, expires_us=START_US + HOUR_US)
    assert [first, second, None] == found
    assert (None, [True, False], None) == (expired, revoked, gone)
    assert [second, replace(first, revoked_us=START_US + HOUR_US)] == all_keys
    assert [] == foreign


def test_session_lasts_until_it_ends_or_its_key_does(db: Database, clock: ManualClock) -> None:
    """A session has its key's principal; ending it or revoking the key stops it."""
    key_id = add_key(db)
    with db.transaction("start") as tx:
        for name in ("s1", "s2"):
            keys.put_session(tx, session_hash=name, key_id=key_id, csrf_token="t")
    clock.advance(1)

    with db.transaction("use") as tx:
        keys.touch_session(tx, "s1")
        found = keys.find_session(tx, "s1")
        ended = [keys.end_session(tx, "s1") for _ in range(2)]
        after_end = keys.find_session(tx, "s1")
        other = keys.find_session(tx, "s2")
        keys.revoke_key(tx, key_id)
        after_revoke = keys.find_session(tx, "s2")

    session = Session(
        session_hash="s1",
        key_id=key_id,
        principal=ADA,
        csrf_token="t",
        created_us=START_US,
        seen_us=START_US + SECOND_US,
    )
    assert (session, [True, False], None) == (found, ended, after_end)
    assert (replace(session, session_hash="s2", seen_us=START_US), None) == (other, after_revoke)


def test_link_signs_in_once(db: Database, clock: ManualClock) -> None:
    """A link works once, before it expires, while its key works."""
    key_id = add_key(db)
    stopped = add_key(db, "h2")
    with db.transaction("links") as tx:
        for name, owner in (("l1", key_id), ("l2", key_id), ("l3", stopped)):
            keys.put_link(tx, link_hash=name, key_id=owner, expires_us=START_US + SECOND_US)
        keys.revoke_key(tx, stopped)

    with db.transaction("use") as tx:
        used = [keys.use_link(tx, name) for name in ("l1", "l1", "l3", "absent")]
    clock.advance(1)
    too_late = db.run("use", lambda tx: keys.use_link(tx, "l2"))

    assert ([key_id, None, None, None], None) == (used, too_late)


def test_link_is_used_by_one_of_two(db: Database) -> None:
    """Two sign-ins at once with one link: one of them gets in."""
    key_id = add_key(db)
    with db.transaction("link") as tx:
        keys.put_link(tx, link_hash="l", key_id=key_id, expires_us=START_US + 1)

    assert {key_id, None} == set(both(db, lambda tx: keys.use_link(tx, "l")))


def test_open_effect_states_are_those_of_the_index(db: Database) -> None:
    """The partial index over open effects covers every state that may still change by itself."""
    for n, state in enumerate(EffectState):
        with db.transaction("insert") as tx:
            effects.insert(tx, replace(intent(RUN, str(n)), state=state))

    with db.reading() as tx:
        found = effects.list_effects(
            tx, states=(EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PARKED)
        )

    assert {EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PARKED} == {
        each.state for each in found
    }


def test_a_definition_is_kept_once(db: Database) -> None:
    """The first one of a pin stays, whichever server says it again."""

    def put(tx: Tx) -> None:
        for pin, said in (("one", "a"), ("one", "b"), ("two", "c")):
            upstreams.put(tx, pin, {"said": said})

    db.run("put", put)

    with db.reading() as tx:
        found = [upstreams.find(tx, pins) for pins in (["one", "three"], ["two"], [])]

    assert [{"one": {"said": "a"}}, {"two": {"said": "c"}}, {}] == found


def test_a_quarantine_is_the_next_release_and_the_first_reason_stays(db: Database) -> None:
    """What is quarantined already makes no release."""
    db.run("apply", lambda tx: registry.put_release(tx, Release(), by="ann"))
    first, second = {"a@dev": "changed"}, {"a@dev": "removed", "b@dev": "removed"}

    made = [
        db.run("quarantine", partial(registry.quarantine, bindings=bindings, by="interlock"))
        for bindings in (first, first, second)
    ]

    assert [2, None, 3] == [release and release.number for release in made]
    with db.reading() as tx:
        assert {**second, **first} == dict(registry.get_release(tx, 3).quarantine)
