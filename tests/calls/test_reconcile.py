"""Unknown outcomes, with tools that answer as written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from interlock.calls import reconcile
from interlock.calls.road import Call, CallState
from interlock.domain.canonical import Json, parse
from interlock.domain.decision import Outcome
from interlock.domain.effect import EffectState, Reply
from interlock.domain.errors import ConflictError, ForbiddenError
from interlock.domain.ids import RunId, TenantId
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import RunState
from interlock.runtime.durable.segment import Segment
from interlock.store import decisions, runs
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.calls.call_bench import NOT_SENT, UNKNOWN, CallBench, created, found, said
from tests.road_bench import DANA

KEYED, PROBED, READ = TOOL_OF["keyed"], TOOL_OF["probed"], TOOL_OF["read"]


@pytest.mark.parametrize(
    "answer", [NOT_SENT, said(503), said(400)], ids=["not sent", "busy", "refused"]
)
def test_a_resend_that_did_nothing_says_nothing_of_the_attempt_before_it(
    bench: CallBench, answer: Reply
) -> None:
    """The first attempt may have been done: the end is a person's to say, never `failed`."""
    bench.outside.answers("keyed", UNKNOWN, answer)

    run_id = bench.call("keyed")
    bench.pass_time(run_id)

    assert (EffectState.PARKED, RunState.WAITING) == bench.state(run_id)
    assert 4 == bench.outside.count("keyed")


def test_a_resend_keeps_its_key_and_may_settle_it(bench: CallBench) -> None:
    """Unknown, busy, then done: one row, one key, three attempts."""
    bench.outside.answers("keyed", UNKNOWN, said(429), created())

    run_id = bench.call("keyed")
    bench.pass_time(run_id)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert 1 == len({call.effect.idem_key for call in bench.outside.sent})
    assert [False, True, True] == [call.effect.is_in_doubt for call in bench.outside.sent]
    assert not bench.one(run_id).is_in_doubt


def test_a_key_known_with_another_body_goes_to_a_person_at_once(bench: CallBench) -> None:
    """Nothing that is sent with this key again can help."""
    bench.outside.answers("keyed", said(409))

    run_id = bench.call("keyed")
    bench.pass_time(run_id)

    assert (EffectState.PARKED, RunState.WAITING) == bench.state(run_id)
    assert 1 == bench.outside.count("keyed")


def test_a_read_is_given_up_and_never_parked(bench: CallBench) -> None:
    """A bounded number of attempts, then the step fails: nothing outside depends on it."""
    bench.outside.answers("read", UNKNOWN)

    run_id = bench.call("read")
    bench.pass_time(run_id)

    assert (EffectState.FAILED_DEFINITE, RunState.FAILED) == bench.state(run_id)
    assert 4 == bench.outside.count("read")
    assert "call.unanswered" == bench.one(run_id).error_code


def test_the_hint_of_the_tool_is_kept_over_a_restart_of_the_code(bench: CallBench) -> None:
    """It is not asked again before the time it named, although the run is woken before."""
    bench.outside.answers("keyed", said(429, retry_after_s=60.0), created())
    run_id = bench.call("keyed")

    bench.engine.advance(30)
    bench.db.run("wake", lambda tx: bench.engine.dispatch.wake(tx, runs.get(tx, run_id)))
    bench.engine.run_until_idle()
    early = bench.outside.count("keyed")
    bench.engine.advance(31)

    assert (1, 2) == (early, bench.outside.count("keyed"))


def test_a_probe_before_the_quiet_time_proves_nothing(bench: CallBench) -> None:
    """The first finds nothing too early; the second one is asked when the request is over."""
    bench.outside.answers("probed", UNKNOWN)
    bench.outside.answers("read", found(), found("7"))

    run_id = bench.call("probed")
    early = bench.one(run_id).state
    bench.pass_time(run_id)

    assert EffectState.AMBIGUOUS is early
    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert {"id": "7"} == bench.one(run_id).result
    assert 1 == bench.outside.count("probed")


def test_the_answer_of_an_old_question_is_not_taken_for_a_new_one(bench: CallBench) -> None:
    """A crash after an early probe: its recorded answer counts for when it was asked."""
    bench.outside.answers("probed", UNKNOWN)
    bench.outside.answers("read", found(), found("7"))

    def crash() -> None:
        bench.steal()
        bench.clock.advance(60)

    bench.points.at("call.outcome.after", READ, crash)

    run_id = bench.call("probed")
    bench.pass_time(run_id)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert 1 == bench.outside.count("probed")


def test_a_probe_that_finds_nothing_in_time_leads_to_a_resend(bench: CallBench) -> None:
    """It was not done, so the next attempt may do it."""
    bench.outside.answers("probed", UNKNOWN, created())

    run_id = bench.call("probed")
    bench.pass_time(run_id)

    assert (EffectState.SUCCEEDED, 2) == (bench.one(run_id).state, bench.one(run_id).attempt)
    assert RunState.SUCCEEDED is bench.get(run_id).state


def test_a_probe_that_finds_two_parks(bench: CallBench) -> None:
    """More than one effect is for a person."""
    bench.outside.answers("probed", UNKNOWN)
    bench.outside.answers("read", found("1", "2"))

    run_id = bench.call("probed")

    effect = bench.one(run_id)
    assert EffectState.PARKED is effect.state
    assert "the probe found 2 effects" == effect.error_message


@pytest.mark.parametrize(
    "answer", [UNKNOWN, said(200, {"things": []})], ids=["silent", "of another shape"]
)
def test_a_probe_without_an_answer_proves_nothing(bench: CallBench, answer: Reply) -> None:
    """Five are asked, then a person; it is not sent again."""
    bench.outside.answers("probed", UNKNOWN)
    bench.outside.answers("read", answer)

    run_id = bench.call("probed")
    for _ in range(60):
        bench.engine.advance(300)

    effect = bench.one(run_id)
    assert (EffectState.PARKED, "5 probes did not settle it") == (
        effect.state,
        effect.error_message,
    )
    assert 1 == bench.outside.count("probed")


def test_a_guard_that_refused_a_resend_is_probed_and_found(bench: CallBench) -> None:
    """The used link says that an earlier request was taken; the probe says what it did."""
    bench.outside.answers("conditional", UNKNOWN, said(400))
    bench.outside.answers("read", found("9"))

    run_id = bench.call("conditional")
    bench.pass_time(run_id)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert 2 == bench.outside.count("conditional")


def test_a_guard_that_refused_without_an_effect_is_not_tried_again(bench: CallBench) -> None:
    """A link that a failed request has used up: nothing was done, a new proposal is needed."""
    bench.outside.answers("conditional", UNKNOWN, said(400))

    run_id = bench.call("conditional")
    bench.pass_time(run_id)

    effect = bench.one(run_id)
    assert (EffectState.FAILED_DEFINITE, "call.not_done") == (effect.state, effect.error_code)
    assert (2, RunState.FAILED) == (
        bench.outside.count("conditional"),
        bench.get(run_id).state,
    )


def _edit(tool: str, *changes: tuple[str, str]) -> dict[str, str]:
    """Return the file of a tool with some text replaced."""
    path = f"tools/{tool}.yaml"
    text = files("http://127.0.0.1:9")[path]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return {path: text}


RESULT = "found: 'out:/items', result: "


@pytest.mark.parametrize(
    ("new", "text", "expected"),
    [
        ("found: 'out:/items', equals: {id: 'in:/text'}", "7", (EffectState.SUCCEEDED, 1)),
        ("found: 'out:/items', equals: {id: 'in:/text'}", "8", (EffectState.SUCCEEDED, 2)),
        ("found: 'out:/nothing'", "7", (EffectState.SUCCEEDED, 2)),
        ("found: 'out:/items/0'", "7", (EffectState.SUCCEEDED, 1)),
        ("found: 'out:/items/0/note'", "7", (EffectState.SUCCEEDED, 2)),
        (f"{RESULT} {{id: 'found:/id'}}", "7", (EffectState.SUCCEEDED, 1)),
        (f"{RESULT} {{id: 'found:/nothing'}}", "7", (EffectState.PARKED, 1)),
        (f"{RESULT} {{no: id}}", "7", (EffectState.PARKED, 1)),
    ],
    ids=[
        "equal",
        "another",
        "no such member",
        "one object",
        "null",
        "result",
        "no result",
        "broken result",
    ],
)
def test_what_a_probe_finds_is_read_as_declared(
    sqlite_url: str, new: str, text: str, expected: tuple[EffectState, int]
) -> None:
    """A list, one object or nothing; with `equals` only what has these values."""
    with CallBench(sqlite_url, edits=_edit(PROBED, ("found: 'out:/items'", new))) as bench:
        bench.outside.answers("probed", UNKNOWN, created())
        bench.outside.answers("read", said(200, {"items": [{"id": "7", "note": None}]}))

        run_id = bench.call("probed", text=text)
        bench.pass_time(run_id)

        assert expected == (bench.one(run_id).state, bench.outside.count("probed"))


def test_a_probes_result_that_cannot_be_kept_goes_to_a_person(sqlite_url: str) -> None:
    """What is found can be kept, what is made of it is a level too deep."""
    made = f"{RESULT} {{id: 'found:/id', a: {{a: {{a: {{a: 'found:/deep'}}}}}}}}"
    deep = parse("[" * 28 + "]" * 28)
    with CallBench(sqlite_url, edits=_edit(PROBED, ("found: 'out:/items'", made))) as bench:
        bench.outside.answers("probed", UNKNOWN)
        bench.outside.answers("read", said(200, {"items": [{"id": "7", "deep": deep}]}))

        run_id = bench.call("probed")
        bench.pass_time(run_id)

        assert (EffectState.PARKED, RunState.WAITING) == bench.state(run_id)
        assert "nested deeper than 31 levels" in str(bench.one(run_id).error_message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("args: {reference: 'effect:id'}", "args: {reference: 'in:/note'}"),
        ("found: 'out:/items'", "found: 'out:/items', equals: {id: 'in:/note'}"),
    ],
    ids=["question", "equals"],
)
def test_a_probe_that_cannot_be_worded_goes_to_a_person(
    sqlite_url: str, old: str, new: str
) -> None:
    """An argument that was left out says nothing about what was done."""
    note = ("properties: {text", "properties: {note: {type: string}, text")
    with CallBench(sqlite_url, edits=_edit(PROBED, (old, new), note)) as bench:
        bench.outside.answers("probed", UNKNOWN)
        bench.outside.answers("read", found("7"))

        run_id = bench.call("probed")
        bench.pass_time(run_id)

        assert EffectState.PARKED is bench.one(run_id).state
        assert 1 == bench.outside.count("probed")


def test_a_resend_that_policy_refuses_goes_to_a_person(bench: CallBench) -> None:
    """It may have been done: that nothing more may be sent does not make it a refusal."""
    bench.outside.answers("keyed", UNKNOWN)
    without_grant = files("http://127.0.0.1:9")
    del without_grant["policies/grants/recorder.cedar"]
    bench.outside.on_send = lambda _call: bench.apply(without_grant)

    run_id = bench.call("keyed")
    bench.pass_time(run_id)

    effect = bench.one(run_id)
    assert (EffectState.PARKED, "effect.parked") == (effect.state, effect.error_code)
    assert "may not be sent again" in str(effect.error_message)
    assert "parked" in bench.evidence(effect)


def test_a_read_that_policy_refuses_after_an_unknown_outcome_is_denied(bench: CallBench) -> None:
    """It changed nothing, so nothing is in doubt: the refusal is its end, as that of any call."""
    bench.outside.answers("read", UNKNOWN)
    bench.outside.on_send = lambda _call: bench.apply(_ruled("guardrails", '@why("stop")'))

    run_id = bench.call("read")
    bench.pass_time(run_id)

    assert (EffectState.DENIED, RunState.FAILED) == bench.state(run_id)
    assert ["policy.denied"] * 2 == [bench.one(run_id).error_code, bench.get(run_id).error_code]
    effect_id = bench.one(run_id).effect_id
    with bench.db.reading() as tx:
        recorded = decisions.list_for_effect(tx, effect_id)
    assert [Outcome.ALLOW, Outcome.DENY] == [r.decision.outcome for r in recorded]
    assert 1 == bench.outside.count("read")


def test_a_read_that_has_to_be_approved_after_an_unknown_outcome_is_asked_for(
    bench: CallBench,
) -> None:
    """It is sent again once people have approved it."""
    bench.outside.answers("read", UNKNOWN, found("7"))
    rule = _ruled("approvals", '@approval("data-owners") @why("so")')
    bench.outside.on_send = lambda _call: bench.apply(rule)
    run_id = bench.call("read")
    bench.engine.advance(2)
    bench.outside.on_send = lambda _call: None
    waiting, [approval] = bench.state(run_id), bench.asked(run_id)

    bench.approve(approval)

    assert (EffectState.PROPOSED, RunState.WAITING) == waiting
    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert 2 == bench.outside.count("read")


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("", (EffectState.PARKED, RunState.WAITING, 1)),
        (
            f"probe: {{tool: {READ}@1, args: {{}}, found: 'out:/items', lag_s: 0}}",
            (EffectState.SUCCEEDED, RunState.SUCCEEDED, 2),
        ),
    ],
    ids=["no probe", "probe"],
)
def test_a_key_that_ran_out_in_the_pause_is_not_used_again(
    sqlite_url: str, probe: str, expected: tuple[EffectState, RunState, int]
) -> None:
    """It is looked up if it can be, else a person is asked; what was not done is sent anew."""
    short = ("key_ttl_s: 3600,", f"key_ttl_s: 1, {probe and probe + ','}")
    with CallBench(sqlite_url, edits=_edit(KEYED, short)) as bench:
        bench.outside.answers("keyed", UNKNOWN, created())
        run_id = _paused_until_late(bench, "keyed")

        assert expected == (*bench.state(run_id), bench.outside.count("keyed"))


def test_a_link_that_ran_out_in_the_pause_is_not_used_again(sqlite_url: str) -> None:
    """The probe finds nothing, so the next attempt gets a link of its own."""
    short = ("refused: [400]", "refused: [400], ttl_s: 1")
    with CallBench(sqlite_url, edits=_edit(TOOL_OF["conditional"], short)) as bench:
        bench.outside.answers("conditional", UNKNOWN, created())
        run_id = _paused_until_late(bench, "conditional")

        sent = [call.effect for call in bench.outside.sent if call.effect.is_write]
        assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
        assert ["/links/0", "/links/1"] == [(effect.guard or {})["link"] for effect in sent]


@pytest.mark.parametrize("effect_class", ["keyed", "conditional", "probed", "blind", "read"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [(UNKNOWN, EffectState.PARKED), (NOT_SENT, EffectState.DENIED)],
    ids=["unknown", "not sent"],
)
def test_a_tool_that_was_dropped_meanwhile_leaves_no_call_open(
    bench: CallBench, effect_class: str, answer: Reply, expected: EffectState
) -> None:
    """An unknown outcome of a write goes to a person, all else is refused."""
    bench.outside.answers(effect_class, answer)
    run_id = bench.start(f"call_{effect_class}", {"text": "hello"})
    bench.outside.on_send = lambda _call: bench.apply(_nothing())

    bench.engine.run_until_idle()
    bench.pass_time(run_id)

    is_read = effect_class == "read"
    assert (EffectState.DENIED if is_read else expected) is bench.one(run_id).state
    assert "step.name_reused" != bench.get(run_id).error_code


def test_an_owner_that_was_lost_between_intent_and_outcome_is_taken_over(
    bench: CallBench,
) -> None:
    """The new owner calls the outcome unknown, says so in evidence, and goes on by class."""
    bench.outside.on_send = lambda _call: _steal(bench)

    run_id = bench.call("keyed")

    effect = bench.one(run_id)
    kinds = bench.evidence(effect)
    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
    assert {"late.succeeded", "owner.lost", "reply.succeeded"} == set(kinds)
    assert (2, 2) == (effect.attempt, bench.outside.count("keyed"))


@pytest.mark.parametrize(("was_seen", "after_6_s"), [(True, 2), (False, 1)])
def test_a_probe_waits_longer_for_an_owner_that_nobody_saw_end(
    bench: CallBench, *, was_seen: bool, after_6_s: int
) -> None:
    """Past its lease a worker of another host may send yet: five seconds and a deadline more."""
    bench.outside.on_send = lambda _call: _steal(bench, was_seen=was_seen)

    bench.call("probed")
    bench.engine.advance(6)
    early = bench.outside.count("probed")
    bench.engine.advance(5)

    assert (after_6_s, 2) == (early, bench.outside.count("probed"))


def test_a_blind_call_of_a_lost_owner_is_parked_and_its_late_answer_only_shown(
    bench: CallBench,
) -> None:
    """The stale owner's answer is evidence and does not change what the row says."""
    bench.outside.on_send = lambda _call: _steal(bench)

    run_id = bench.call("blind")

    effect = bench.one(run_id)
    assert (EffectState.PARKED, RunState.WAITING) == bench.state(run_id)
    assert {"late.succeeded", "owner.lost", "parked"} == set(bench.evidence(effect))
    assert 1 == bench.outside.count("blind")


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (replace(DANA, kind=PrincipalKind.SERVICE), "is not an operator"),
        (replace(DANA, roles=frozenset({Role.APPROVER})), "is not an operator"),
        (replace(DANA, tenant=TenantId("other")), "another tenant"),
    ],
    ids=["service", "role", "tenant"],
)
def test_only_an_operator_of_the_tenant_settles(
    bench: CallBench, by: Principal, words: str
) -> None:
    """Whoever else tries is refused and nothing changes."""
    bench.outside.answers("blind", UNKNOWN)
    effect = bench.one(bench.call("blind"))

    with pytest.raises(ForbiddenError, match=words):
        _settle(bench, by=by)(effect.effect_id)

    assert EffectState.PARKED is bench.effect(effect.effect_id).state


def test_an_effect_is_settled_once(bench: CallBench) -> None:
    """The second word is refused, also the same one."""
    bench.outside.answers("blind", UNKNOWN)
    effect = bench.one(bench.call("blind"))
    bench.settle(effect, "done")

    with pytest.raises(ConflictError, match="only a parked one"):
        bench.settle(effect, "done")


@pytest.mark.parametrize(
    ("effect_class", "state"),
    [("keyed", EffectState.PARKED), ("read", EffectState.FAILED_DEFINITE)],
)
def test_the_end_of_a_run_leaves_no_unknown_outcome_behind(
    bench: CallBench, effect_class: str, state: EffectState
) -> None:
    """A run that is cancelled while it waits to send again: a person hears of the call."""
    bench.outside.answers(effect_class, UNKNOWN, said(503))
    run_id = bench.call(effect_class)
    bench.engine.advance(2)
    before = bench.one(run_id).state

    bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
    bench.engine.run_until_idle()

    assert EffectState.AMBIGUOUS is before
    assert (state, RunState.CANCELLED) == bench.state(run_id)


def test_a_call_whose_outcome_cannot_be_written_is_left_to_a_person(bench: CallBench) -> None:
    """The run fails by a bug of ours; the intent does not stay open."""

    async def body(durable: Segment) -> Json:
        return (await bench.propose(durable, "one", "keyed")).to_json()

    def fail(_call: Call) -> None:
        raise RuntimeError("a bug")

    bench.body = body
    bench.outside.on_send = fail

    run_id = bench.call("keyed")

    assert (EffectState.PARKED, RunState.FAILED) == bench.state(run_id)


def test_the_same_step_gets_the_same_result(bench: CallBench) -> None:
    """A second proposal under one name, reworded, gets the recorded answer and sends nothing."""

    async def body(durable: Segment) -> Json:
        first = await bench.propose(durable, "one", "keyed", arguments={"text": "a"})
        second = await bench.propose(durable, "one", "keyed", arguments={"text": "b"})
        assert first == second
        return first.state

    bench.body = body

    run_id = bench.call("keyed")

    assert CallState.SUCCEEDED == bench.get(run_id).output
    assert 1 == bench.outside.count("keyed")


def _settle(bench: CallBench, *, by: Principal) -> Callable[..., object]:
    return lambda effect_id: reconcile.settle(
        bench.db, bench.engine.dispatch, effect_id, by=by, answer="done", reason="I looked"
    )


def _ruled(folder: str, rule: str) -> dict[str, str]:
    """Return the project with a policy against reads."""
    action = f'forbid (principal, action == Action::"{READ}", resource);'
    policy = f'@id("ruled") @owner("platform") {rule} {action}'
    return files("http://127.0.0.1:9") | {f"policies/{folder}/ruled.cedar": policy}


def _paused_until_late(bench: CallBench, effect_class: str) -> RunId:
    """Run a call of unknown outcome until its end; its first pause takes far longer than it is."""
    run_id = bench.start(WORKFLOW_OF[effect_class], {"text": "hello"})
    bench.points.at("call.pause.after", None, lambda: bench.clock.advance(60))
    bench.engine.run_until_idle()
    bench.pass_time(run_id)
    return run_id


def _nothing() -> dict[str, str]:
    """Return a project without tools and workflows."""
    project = files("http://127.0.0.1:9")
    return {p: t for p, t in project.items() if not p.startswith(("tools/", "workflows/"))}


def _steal(bench: CallBench, *, was_seen: bool = True) -> None:
    """Let another worker take the run over while the call is under way; once."""
    bench.outside.on_send = lambda _call: None
    bench.steal(was_seen=was_seen)
