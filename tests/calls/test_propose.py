"""Proposals: pinned tools, canonical arguments, business keys; a replay keeps the row's words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interlock.calls.propose import business_key_text
from interlock.calls.road import CallResult, CallState
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect, EffectState
from interlock.domain.ids import RunId
from interlock.domain.run import RunState
from interlock.domain.tool import BusinessKey, KeyPart
from interlock.runtime.durable.segment import Segment
from interlock.testing.recorder_project import TOOL_OF, files
from tests.calls.call_bench import CallBench

KEYED = TOOL_OF["keyed"]
KEY = "business_key: {parts: [{at: 'in:/text', fold: words}]}\n"
UNUSED = {
    path: ""
    for path in files("http://127.0.0.1:9")
    if any(name in path for name in ("_linked", "_probed", "_blind", "conditional", "call_read"))
}


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[CallBench]:
    """Run a plane whose keyed tool has a business key."""
    path = f"tools/{KEYED}.yaml"
    with CallBench(sqlite_url, edits=UNUSED | {path: files("http://x")[path] + KEY}) as running:
        yield running


def proposed(
    bench: CallBench, arguments: Json, *, tool: str = "keyed", version: int | None = None
) -> tuple[CallResult, Effect]:
    """Propose one call in a run of its own and return how it ended, with its row."""
    run_id = start(bench, arguments, tool=tool, version=version)
    return CallResult.from_journal(bench.get(run_id).output), bench.one(run_id)


def start(
    bench: CallBench, arguments: Json, *, tool: str = "keyed", version: int | None = None
) -> RunId:
    """Propose one call in a run of its own, which may then wait."""

    async def body(durable: Segment) -> Json:
        result = await bench.propose(durable, "one", tool, arguments=arguments, version=version)
        return result.to_json()

    bench.body = body
    return bench.call("keyed")


@pytest.mark.parametrize(
    ("fold", "given", "expected"),
    [
        ("exact", " VPN  down! ", " VPN  down! "),
        ("lower", " VPN  Down! ", "vpn down!"),
        ("lower", "STRASSE", "strasse"),
        ("lower", "Straße", "strasse"),
        ("words", "VPN down!", "vpn down"),
        ("words", "vpn  --  DOWN", "vpn down"),
        ("words", "\ufb01le №5", "file no5"),
        ("exact", 7, "7"),
        ("words", {"b": 1, "a": "X"}, "a x b 1"),
    ],
)
def test_a_part_of_a_business_key_is_folded_as_declared(
    fold: str, given: Json, expected: str
) -> None:
    """What means the same to a person gives the same text."""
    part = KeyPart(at="in:/title", fold=fold)  # type: ignore[arg-type]  # one of the literals

    assert expected == business_key_text(BusinessKey(parts=(part,)), {"title": given})


def test_the_parts_of_a_business_key_are_joined_in_the_declared_order() -> None:
    """Each is folded in its own way."""
    parts = (KeyPart(at="in:/who/name", fold="lower"), KeyPart(at="in:/title"))

    text = business_key_text(BusinessKey(parts=parts), {"title": "VPN", "who": {"name": "Ann"}})

    assert "ann | VPN" == text


def test_a_business_key_without_one_of_its_parts_is_none() -> None:
    """Half a key would take different things for the same one."""
    parts = (KeyPart(at="in:/title"), KeyPart(at="in:/owner"))

    assert business_key_text(BusinessKey(parts=parts), {"title": "VPN"}) is None


def test_the_same_thing_in_other_words_has_the_same_key(bench: CallBench) -> None:
    """The second time people are asked; something else passes."""
    first_id = start(bench, {"text": "VPN down!"})
    same_id = start(bench, {"text": "vpn  down"})
    other_id = start(bench, {"text": "mail down"})

    first, same, other = (bench.one(run_id) for run_id in (first_id, same_id, other_id))
    assert [RunState.SUCCEEDED, RunState.WAITING, RunState.SUCCEEDED] == [
        bench.get(run_id).state for run_id in (first_id, same_id, other_id)
    ]
    assert "vpn down" == first.key_text == same.key_text
    assert first.key_hash == same.key_hash
    assert other.key_hash not in {None, first.key_hash}


@pytest.mark.parametrize(
    ("tool", "version"), [("no.such.tool", None), ("keyed", 2)], ids=["name", "version"]
)
def test_an_unknown_tool_is_refused_with_a_row(
    bench: CallBench, tool: str, version: int | None
) -> None:
    """The row takes it for the worst: a blind write without a pin."""
    result, effect = proposed(bench, {"text": "a"}, tool=tool, version=version)

    name = TOOL_OF.get(tool, tool)
    assert (CallState.DENIED, "tool.unknown") == (result.state, result.code)
    assert f"there is no tool `{name}` for this seat" == result.message
    assert (EffectState.DENIED, 0, "", True) == (
        effect.state,
        effect.tool_version,
        effect.pin,
        effect.is_write,
    )
    assert [] == bench.outside.sent


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"text": 31337}, "/text"),
        ({"text": "s3cret" * 100}, "/text"),
        ({}, "/"),
    ],
    ids=["type", "length", "missing"],
)
def test_a_broken_contract_is_refused_without_a_word_of_the_arguments(
    bench: CallBench, arguments: JsonObject, place: str
) -> None:
    """The message says where and why; what was sent stays in the row."""
    result, effect = proposed(bench, arguments)

    message = str(result.message)
    assert (CallState.DENIED, "contract.violated") == (result.state, result.code)
    assert f"`{place}`" in message
    assert "s3cret" not in message
    assert "31337" not in message
    assert (arguments, None) == (effect.arguments, effect.key_hash)
    assert [] == bench.outside.sent


@pytest.mark.parametrize("arguments", ["s3cret", ["s3cret"]], ids=["text", "list"])
def test_arguments_that_are_no_object_are_refused_and_not_stored(
    bench: CallBench, arguments: Json
) -> None:
    """A row's arguments are always an object."""
    result, effect = proposed(bench, arguments)

    assert ("contract.violated", "the arguments are not an object") == (
        result.code,
        result.message,
    )
    assert {} == effect.arguments


def test_arguments_without_a_canonical_form_are_refused(bench: CallBench) -> None:
    """There is no digest of them that an approval could bind to."""
    result, effect = proposed(bench, {"text": float("nan")})

    assert CallState.DENIED is result.state
    assert "has no canonical form" in str(result.message)
    assert {} == effect.arguments


def test_a_replay_in_other_words_keeps_the_arguments_of_the_row(sqlite_url: str) -> None:
    """What people approved is sent, whatever is proposed after the wait."""
    words = iter(["first", "second", "third"])
    with CallBench(sqlite_url, approve=True, edits=UNUSED) as bench:

        async def body(durable: Segment) -> Json:
            arguments: JsonObject = {"text": next(words)}
            return (await bench.propose(durable, "one", "keyed", arguments=arguments)).state

        bench.body = body
        run_id = bench.call("keyed")
        before = bench.one(run_id)

        bench.approve(bench.asked(run_id)[0])

        after = bench.one(run_id)
        assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
        assert [{"text": "first"}] == [call.effect.arguments for call in bench.outside.sent]
        assert before.args_digest == after.args_digest
        assert "third" == next(words)
