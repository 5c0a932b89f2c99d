"""What voids an approval: the end of its run, and whatever the call's digest covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest

from interlock.calls import approve
from interlock.calls.road import Live
from interlock.calls.validate import call_digest_of
from interlock.domain.agent import AgentSpec
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import Json
from interlock.domain.decision import Decision, Outcome
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, ForbiddenError
from interlock.domain.ids import AgentName, DecisionId, RunId, WorkflowName
from interlock.domain.principal import Principal, Seat
from interlock.domain.release import Release
from interlock.domain.run import RunState
from interlock.runtime.durable.segment import Segment
from interlock.store import runs, spans
from interlock.testing.recorder_project import TOOL_OF, files
from tests.calls.call_bench import CallBench
from tests.road_bench import DANA

KEYED = TOOL_OF["keyed"]
SERVER_PATH, TOOL_PATH = "servers/recorder-dev.yaml", f"tools/{KEYED}.yaml"
URL = "http://127.0.0.1:9"
UNUSED = {
    path: ""
    for path in files(URL)
    if any(name in path for name in ("_linked", "_probed", "_blind", "conditional", "call_read"))
}
SIGNED_IN = {SERVER_PATH: f"{files(URL)[SERVER_PATH]}auth: bearer\n"} | {
    path: text.replace(
        "{server: recorder-dev}",
        "{server: recorder-dev, credentials: 'secret://recorder/dev/one'}",
    )
    for path, text in files(URL).items()
    if path.startswith("tools/")
}


@pytest.fixture
def asking(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose writes wait for the group `data-owners`."""
    with CallBench(sqlite_url, approve=True, edits=SIGNED_IN | UNUSED) as running:
        yield running


def test_a_cancelled_run_takes_its_question_back(asking: CallBench) -> None:
    """The call has ended as refused, nobody is asked any more, and its spans are closed."""
    run_id = asking.call("keyed")

    _cancel(asking, run_id)

    effect = asking.one(run_id)
    assert (EffectState.DENIED, RunState.CANCELLED) == asking.state(run_id)
    assert ("run.cancelled", "the run is `cancelled`") == (effect.error_code, effect.error_message)
    assert effect.outcome_us is not None
    assert [ApprovalState.VOID] == _states(asking, run_id)
    with asking.db.reading() as tx:
        ends = [span.end_us for span in spans.list_for_run(tx, run_id)]
    assert ends
    assert None not in ends


def test_nobody_can_approve_for_a_cancelled_run(asking: CallBench) -> None:
    """The answer is refused, and nothing is sent."""
    run_id = asking.call("keyed")
    [approval] = asking.asked(run_id)
    _cancel(asking, run_id)

    with pytest.raises(ConflictError, match="is `void` already"):
        asking.approve(approval)

    assert 0 == asking.outside.count("keyed")


def test_an_approval_given_before_the_cancel_is_void_too(asking: CallBench) -> None:
    """The run was cancelled before it could use it."""
    run_id = asking.call("keyed")
    _approve(asking, asking.asked(run_id)[0])

    _cancel(asking, run_id)

    assert [ApprovalState.VOID] == _states(asking, run_id)
    assert (EffectState.DENIED, RunState.CANCELLED) == asking.state(run_id)
    assert 0 == asking.outside.count("keyed")


EVA = replace(DANA, name="eva")
TWO = {
    path: text.replace("by: data-owners,", "by: data-owners, people: 2,")
    for path, text in files(URL, approve=True).items()
    if path.startswith("workflows/") and path not in UNUSED
}


@pytest.fixture
def doubly(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose writes wait for two people of `data-owners`."""
    with CallBench(sqlite_url, approve=True, edits=SIGNED_IN | UNUSED | TWO) as running:
        yield running


def test_four_eyes_are_those_of_two_people(doubly: CallBench) -> None:
    """Who has approved cannot be the second one; another can, and then it is sent once."""
    run_id = doubly.call("keyed")
    first, second = doubly.asked(run_id)
    _approve(doubly, second)
    before = doubly.outside.count("keyed")
    with pytest.raises(ForbiddenError, match="another person of `data-owners` has to as well"):
        _approve(doubly, first)

    _approve(doubly, first, by=EVA)
    doubly.engine.run_until_idle()

    assert ["data-owners", "data-owners#2"] == [first.group, second.group]
    assert (0, 1) == (before, doubly.outside.count("keyed"))
    assert [ApprovalState.APPROVED] * 2 == _states(doubly, run_id)
    assert EffectState.SUCCEEDED is doubly.one(run_id).state


def test_one_of_two_who_refuses_ends_it(doubly: CallBench) -> None:
    """Whatever the other one said before."""
    run_id = doubly.call("keyed")
    first, second = doubly.asked(run_id)
    _approve(doubly, first)

    _answer(doubly, second, "reject", by=EVA)
    doubly.engine.run_until_idle()

    effect = doubly.one(run_id)
    assert (EffectState.DENIED, "approval.rejected") == (effect.state, effect.error_code)
    assert 0 == doubly.outside.count("keyed")


def test_a_run_that_fails_takes_its_questions_back(asking: CallBench) -> None:
    """One branch waits for people while another one fails."""

    async def body(durable: Segment) -> Json:
        async def ask() -> Json:
            return (await asking.propose(durable, "one", "keyed")).state

        async def fail() -> Json:
            await asking.propose(durable, "two", "read", arguments={})
            raise RuntimeError("a bug")

        await durable.gather([ask, fail])
        return None

    asking.body = body

    run_id = asking.call("keyed")

    [effect] = [e for e in asking.effects(run_id) if e.is_write]
    assert RunState.FAILED is asking.get(run_id).state
    assert (EffectState.DENIED, "run.ended") == (effect.state, effect.error_code)


def test_what_has_ended_keeps_its_end(asking: CallBench) -> None:
    """The end of a run touches only the calls that are open."""

    async def body(durable: Segment) -> Json:
        await asking.propose(durable, "one", "read", arguments={})
        await asking.propose(durable, "two", "nothing.like.this")
        return (await asking.propose(durable, "three", "keyed")).state

    asking.body = body
    run_id = asking.call("keyed")
    before = {effect.step_name.partition("/")[0]: effect for effect in asking.effects(run_id)}

    _cancel(asking, run_id)

    after = {effect.step_name.partition("/")[0]: effect for effect in asking.effects(run_id)}
    assert {"one": EffectState.SUCCEEDED, "two": EffectState.DENIED} == {
        name: after[name].state for name in ("one", "two")
    }
    assert [before["one"], before["two"]] == [after["one"], after["two"]]
    assert ["run.cancelled"] == [after["three"].error_code]


CHANGES = {
    "address": (SERVER_PATH, f"url: {URL}", "url: http://127.0.0.1:10"),
    "way to sign in": (SERVER_PATH, "auth: bearer", "auth: basic"),
    "credentials": (TOOL_PATH, "secret://recorder/dev/one", "secret://recorder/dev/two"),
}


@pytest.mark.parametrize(
    ("change", "is_answered"),
    [
        (CHANGES["address"], False),
        (CHANGES["address"], True),
        (CHANGES["way to sign in"], True),
        (CHANGES["credentials"], False),
    ],
    ids=["address, asked", "address, approved", "way to sign in, approved", "credentials, asked"],
)
def test_a_call_that_would_go_elsewhere_is_asked_anew(
    asking: CallBench, change: tuple[str, str, str], *, is_answered: bool
) -> None:
    """An approval names the server and the credentials under which it was given."""
    run_id = asking.call("keyed")
    [first] = asking.asked(run_id)
    if is_answered:
        _approve(asking, first)
    asking.apply(_changed(*change))
    if not is_answered:
        _approve(asking, first)
    asking.engine.run_until_idle()

    old, new = asking.asked(run_id)
    assert (EffectState.PROPOSED, RunState.WAITING) == asking.state(run_id)
    assert (ApprovalState.VOID, ApprovalState.PENDING) == (old.state, new.state)
    assert first.digest == old.digest != new.digest
    assert 0 == asking.outside.count("keyed")


def test_the_new_approval_lets_the_call_through(asking: CallBench) -> None:
    """It goes once, to where people have now been shown that it goes."""
    run_id = asking.call("keyed")
    asking.apply(_changed(*CHANGES["address"]))
    asking.approve(asking.asked(run_id)[0])

    asking.approve(asking.asked(run_id)[1])

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == asking.state(run_id)
    [call] = asking.outside.sent
    assert "http://127.0.0.1:10" == call.known_binding.server.url


def test_an_approval_that_expired_before_its_use_is_asked_anew(asking: CallBench) -> None:
    """The run took the answer too late: the call waits for a second one, and that one counts."""
    run_id = asking.call("keyed")
    _approve(asking, asking.asked(run_id)[0])
    asking.clock.advance(3601)
    asking.engine.run_until_idle()

    first, second = asking.asked(run_id)
    assert (EffectState.PROPOSED, RunState.WAITING) == asking.state(run_id)
    assert (ApprovalState.APPROVED, ApprovalState.PENDING) == (first.state, second.state)
    assert 0 == asking.outside.count("keyed")

    asking.approve(second)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == asking.state(run_id)
    assert 1 == asking.outside.count("keyed")


def test_a_refusal_of_the_second_round_counts(asking: CallBench) -> None:
    """Nobody answers again: that people approved the call before does not help it."""
    run_id = asking.call("keyed")
    _approve(asking, asking.asked(run_id)[0])
    asking.clock.advance(3601)
    asking.engine.run_until_idle()

    asking.engine.advance(3601)

    effect = asking.one(run_id)
    assert (EffectState.DENIED, "approval.expired") == (effect.state, effect.error_code)
    assert 0 == asking.outside.count("keyed")


@pytest.mark.parametrize("is_answered", [True, False], ids=["rejected", "expired"])
def test_a_refusal_survives_a_crash_before_it_is_written(
    asking: CallBench, *, is_answered: bool
) -> None:
    """The wait has its answer in the journal, the call has not: the next owner writes it."""
    run_id = asking.call("keyed")
    [approval] = asking.asked(run_id)
    asking.points.at("run.wait.after", None, asking.steal)

    if is_answered:
        _answer(asking, approval, "reject")
        asking.engine.run_until_idle()
    else:
        asking.engine.advance(3601)

    effect = asking.one(run_id)
    code = "approval.rejected" if is_answered else "approval.expired"
    assert (EffectState.DENIED, code) == (effect.state, effect.error_code)
    assert 1 < asking.get(run_id).epoch
    assert 0 == asking.outside.count("keyed")


def test_a_change_that_does_not_concern_the_call_voids_nothing(asking: CallBench) -> None:
    """Another tool has a new version in the same release."""
    run_id = asking.call("keyed")
    [approval] = asking.asked(run_id)
    path = f"tools/{TOOL_OF['read']}.yaml"
    asking.apply(_changed(path, "version: 1", "version: 2"))

    asking.approve(approval)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == asking.state(run_id)
    assert [ApprovalState.APPROVED] == _states(asking, run_id)


def test_a_call_of_a_version_that_policy_no_longer_knows_is_denied(asking: CallBench) -> None:
    """While people were asked, the live version got another risk: nothing judges the old one."""
    run_id = asking.call("keyed")
    [approval] = asking.asked(run_id)
    project = _changed(TOOL_PATH, "version: 1", "version: 2")
    asking.apply(project | {TOOL_PATH: project[TOOL_PATH].replace("risk: 1", "risk: 3")})

    asking.approve(approval)

    effect = asking.one(run_id)
    assert (EffectState.DENIED, "tool.version") == (effect.state, effect.error_code)
    assert 0 == asking.outside.count("keyed")


def test_a_digest_is_the_same_until_something_changes(asking: CallBench) -> None:
    """Computed again from the row, it is the one that people were shown."""
    run_id = asking.call("keyed")

    effect = asking.one(run_id)
    with asking.db.reading() as tx:
        again = call_digest_of(asking.road.live.at(tx), runs.get(tx, run_id), effect)

    assert [again] == [approval.digest for approval in asking.asked(run_id)]


def test_the_sponsor_of_any_agent_of_the_chain_cannot_approve(asking: CallBench) -> None:
    """A hand-off does not make the call another person's: all who answer for an agent stay out."""
    run_id = asking.call("keyed")
    effect, seats = asking.one(run_id), []
    agents = {}
    for name in ("giver", "taker"):
        agents[AgentName(name)] = AgentSpec(
            name=AgentName(name),
            version=1,
            title=name,
            owner="it",
            sponsor=f"{name}.sponsor",
            instructions="",
        )
        seats.append(Seat(workflow=WorkflowName("call_keyed"), agent=AgentName(name)))
    live = Live(release=Release(agents=agents), worlds={})
    decision = Decision(outcome=Outcome.NEEDS_APPROVAL, reasons=(), groups=("data-owners",))

    asking.db.run(
        "ask",
        lambda tx: approve.ask(
            tx,
            live,
            runs.get(tx, run_id),
            replace(effect, seats=tuple(seats), call_digest="sha256:chain"),
            decision=decision,
            decision_id=DecisionId("d"),
            ttl_us=1,
        ),
    )

    approval = asking.asked(run_id)[-1]
    assert ("giver.sponsor", "taker.sponsor") == approval.sponsors
    for sponsor in approval.sponsors:
        person, run = replace(DANA, name=sponsor), asking.get(run_id)
        with (
            asking.db.reading() as tx,
            pytest.raises(ForbiddenError, match="sponsors its agent"),
        ):
            approve.check_person(tx, approval, run, person)


def _changed(path: str, old: str, new: str) -> dict[str, str]:
    """Return the project with some text replaced in one file."""
    project = files(URL, approve=True) | SIGNED_IN
    assert old in project[path]
    kept = {name: text for name, text in project.items() if name not in UNUSED}
    return kept | {path: project[path].replace(old, new)}


def _approve(bench: CallBench, approval: Approval, *, by: Principal = DANA) -> None:
    _answer(bench, approval, "approve", by=by)


def _answer(
    bench: CallBench,
    approval: Approval,
    answer: Literal["approve", "reject"],
    *,
    by: Principal = DANA,
) -> None:
    """Let a person answer; nothing runs yet."""
    approve.answer(
        bench.db,
        bench.engine.dispatch,
        approval.approval_id,
        by=by,
        answer=answer,
        digest=approval.digest,
        reason="seen",
    )


def _cancel(bench: CallBench, run_id: RunId) -> None:
    bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
    bench.engine.run_until_idle()


def _states(bench: CallBench, run_id: RunId) -> list[ApprovalState]:
    return [approval.state for approval in bench.asked(run_id)]
