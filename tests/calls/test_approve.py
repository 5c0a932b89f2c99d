"""What voids an approval: the end of its run, and whatever the call's digest covers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interlock.calls import approve
from interlock.calls.validate import call_digest_of
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.canonical import Json
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError
from interlock.domain.ids import RunId
from interlock.domain.run import RunState
from interlock.runtime.segment import Segment
from interlock.store import runs, spans
from tests.calls.call_bench import CallBench
from tests.recorder_project import TOOL_OF, files
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
        assert all(span.end_us is not None for span in spans.list_for_run(tx, run_id))


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


def test_a_change_that_does_not_concern_the_call_voids_nothing(asking: CallBench) -> None:
    """Another tool has a new version in the same release."""
    run_id = asking.call("keyed")
    [approval] = asking.asked(run_id)
    path = f"tools/{TOOL_OF['read']}.yaml"
    asking.apply(_changed(path, "version: 1", "version: 2"))

    asking.approve(approval)

    assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == asking.state(run_id)
    assert [ApprovalState.APPROVED] == _states(asking, run_id)


def test_a_digest_is_the_same_until_something_changes(asking: CallBench) -> None:
    """Computed again from the row, it is the one that people were shown."""
    run_id = asking.call("keyed")

    effect = asking.one(run_id)
    with asking.db.reading() as tx:
        again = call_digest_of(asking.road.live.at(tx), runs.get(tx, run_id), effect)

    assert [again] == [approval.digest for approval in asking.asked(run_id)]


def _changed(path: str, old: str, new: str) -> dict[str, str]:
    """Return the project with some text replaced in one file."""
    project = files(URL, approve=True) | SIGNED_IN
    assert old in project[path]
    kept = {name: text for name, text in project.items() if name not in UNUSED}
    return kept | {path: project[path].replace(old, new)}


def _approve(bench: CallBench, approval: Approval) -> None:
    """Let a person approve; nothing runs yet."""
    approve.answer(
        bench.db,
        bench.engine.dispatch,
        approval.approval_id,
        by=DANA,
        answer="approve",
        digest=approval.digest,
    )


def _cancel(bench: CallBench, run_id: RunId) -> None:
    bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
    bench.engine.run_until_idle()


def _states(bench: CallBench, run_id: RunId) -> list[ApprovalState]:
    return [approval.state for approval in bench.asked(run_id)]
