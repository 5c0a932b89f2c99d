from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import Json, digest
from interlock.domain.ids import RunId
from interlock.domain.tool import RecordPointer
from interlock.domain.touch import Touch
from interlock.observe.lineage import touches_of
from tests.conformance import store_rows as rows
from tests.policy.project import tool

RUN_ID = RunId("r1")
EFFECT = replace(rows.effect(RUN_ID), arguments={"id": "7", "title": "VPN"})


def touched(pointer: RecordPointer, output: Json) -> list[tuple[str, str, str | None]]:
    """Return mode, id and digest of the touches of a call with one pointer."""
    version = tool("desk.issue.create", records=(pointer,))
    found = touches_of(EFFECT, version, output=output, at_us=9)
    return [(touch.mode, touch.external_id, touch.after) for touch in found]


def test_touch_names_run_effect_and_record() -> None:
    """A touch says who touched which record of which system, and when."""
    version = tool(
        "desk.issue.update", records=(RecordPointer(mode="update", type="issue", id="in:/id"),)
    )

    found = touches_of(EFFECT, version, output={}, at_us=9)

    expected = Touch(
        tenant=rows.TENANT,
        run_id=RUN_ID,
        effect_id=EFFECT.effect_id,
        system="desk",
        type="issue",
        external_id="7",
        mode="update",
        at_us=9,
        after=digest(EFFECT.arguments),
    )
    assert (expected,) == found


def test_list_names_one_record_per_item() -> None:
    """A pointer to a list yields each item's id and digest; what has no id is left out."""
    output: Json = {"issues": [{"id": 1}, {"id": "2"}, {"id": None}, {}, {"id": 1}]}
    pointer = RecordPointer(mode="read", type="issue", id="out:/issues", item="/id")

    found = touched(pointer, output)

    assert [("read", "1", digest({"id": 1})), ("read", "2", digest({"id": "2"}))] == found


def test_created_record_is_named_by_the_output() -> None:
    """The id of a new record comes from the reply."""
    pointer = RecordPointer(mode="create", type="issue", id="out:/id")

    assert [("create", "12", digest(EFFECT.arguments))] == touched(pointer, {"id": 12})


def test_read_record_carries_the_digest_of_what_was_seen() -> None:
    """A read's digest is over the output."""
    pointer = RecordPointer(mode="read", type="issue", id="in:/id")

    assert [("read", "7", digest({"a": 1}))] == touched(pointer, {"a": 1})


def test_deleted_record_has_no_digest() -> None:
    """Nothing is left to be seen."""
    pointer = RecordPointer(mode="delete", type="issue", id="in:/id")

    assert [("delete", "7", None)] == touched(pointer, None)


@pytest.mark.parametrize("output", [None, {}, {"id": True}, {"id": {}}, {"id": ""}, {"id": 1.5}])
def test_pointer_that_finds_no_id_yields_nothing(output: Json) -> None:
    """What is no text or integer names no record."""
    assert [] == touched(RecordPointer(mode="read", type="issue", id="out:/id"), output)
