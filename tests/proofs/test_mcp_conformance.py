"""The comparison of the conformance proof: every difference and every stale line is told."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from proofs.mcp_conformance import EXPECTED, REVISIONS, Difference, differences, judged

PASSED, FAILED = frozenset({"list: SUCCESS"}), frozenset({"list: FAILURE"})


def test_a_scenario_with_another_end_differs() -> None:
    """Also one that ran on one side only."""
    found = differences({"a": PASSED, "b": PASSED, "c": PASSED}, {"a": PASSED, "b": FAILED})

    assert [
        Difference(scenario="b", direct=PASSED, through=FAILED),
        Difference(scenario="c", direct=PASSED, through=frozenset()),
    ] == found


@pytest.mark.parametrize(
    ("listed", "problems"),
    [
        ({}, ["here: ask-a differs, and no line says so"]),
        ({"ask-a": "why"}, []),
        ({"ask-a": "why", "gone": "why"}, ["the line `gone` is stale"]),
        ({"ask-*": "why"}, ["the line `ask-*` is stale: ask-b ends alike"]),
    ],
    ids=["no line", "a line", "a line too many", "a line too wide"],
)
def test_a_difference_needs_a_line_and_a_line_a_difference(
    listed: dict[str, str], problems: list[str]
) -> None:
    """So that neither a defect nor an excuse goes unseen."""
    different = [Difference(scenario="ask-a", direct=PASSED, through=FAILED)]

    told = judged("here", different, listed, known={"ask-a", "ask-b"})

    assert len(problems) == len(told)
    assert all(wanted in said for wanted, said in zip(problems, told, strict=True))


def test_every_line_says_why() -> None:
    """For both sides and both revisions."""
    expected = YAML(typ="safe").load(EXPECTED.read_text("utf-8"))

    assert {"server", "client"} == expected.keys()
    for revisions in expected.values():
        assert set(REVISIONS) == revisions.keys()
        assert all(len(why) > 20 for lines in revisions.values() for why in lines.values())
