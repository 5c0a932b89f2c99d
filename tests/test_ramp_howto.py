"""The howto about the autonomy ladder, run as it stands on a workflow that climbs it whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from tests.cli.terminal import done, interlock
from tests.runtime.registry.ladder_bench import KEYED, Ladder

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "ramp.md").read_text("utf-8")
SHOW, EVIDENCE, AGREE, DISAGREE, PROMOTE, DEMOTE = (
    [KEYED if word == "triage" else word for word in shlex.split(line)[1:]]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
)
(BARS,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ladder]:
    """The project in `prod`, on the database that the commands use, with bars as they come."""
    monkeypatch.chdir(tmp_path)
    done("autonomy", "show")
    with Ladder(f"sqlite:///{tmp_path / '.interlock' / 'interlock.db'}", bars="") as running:
        yield running


def key(name: str, *options: str) -> str:
    """Return the key of a person of the team that owns the workflow."""
    made = interlock("key", "create", name, "--group", "platform", *options)
    assert made.code == 0, made
    return made.out.strip()


def shown() -> JsonObject:
    """Return the evidence as JSON."""
    return interlock(*EVIDENCE, "--json").json


def test_the_page_leads_from_drafts_to_unattended(
    bench: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bars as they come: 20 drafts, 50 approved writes, 200 unattended ones."""
    sue = key("sue", "--role", "owner", "--group", "security")
    ann, rob = key("ann", "--role", "owner"), key("rob", "--role", "approver")
    monkeypatch.setenv("INTERLOCK_TOKEN", rob)
    fresh = done(*EVIDENCE)
    bench.calls(20)
    bench.judge()
    first = str(shown()["reviews"][0])  # type: ignore[index]
    said = done(*[first if word == "EFFECT" else word for word in AGREE])
    silent = interlock(*[first if word == "EFFECT" else word for word in DISAGREE])
    bench.review_all()
    refused = interlock(*PROMOTE)
    monkeypatch.setenv("INTERLOCK_TOKEN", ann)
    one = interlock(*PROMOTE)
    monkeypatch.setenv("INTERLOCK_TOKEN", sue)
    two = done(*PROMOTE)

    assert f"{KEYED} in prod: level 0, shown for level 1 since release 1" in fresh
    assert "missing: 0 of 20 drafts are there" in fresh
    assert f"{first}: as you would have it" == said
    assert (1, True) == (silent.code, "is not up for review" in silent.err)
    assert 1 == refused.code
    assert "nothing is missing" in one.out
    assert "not raised yet: `ann` has asked for level 1" in one.err
    assert "level 0 -> 1 in release 2 by ann, confirmed by sue" in two
    for effect_id in bench.calls(50):
        bench.answer("approve", effect_id)
    done(*PROMOTE)
    monkeypatch.setenv("INTERLOCK_TOKEN", ann)
    assert "level 1 -> 2" in done(*PROMOTE)
    bench.calls(200)
    bench.review_all()
    done(*PROMOTE)
    monkeypatch.setenv("INTERLOCK_TOKEN", sue)
    assert "level 2 -> 3" in done(*PROMOTE)
    lowered = done(*DEMOTE)
    told = done(*SHOW, KEYED)

    assert f"{KEYED} in prod: level 3 -> 0 in release 5 by sue: case 4711" == lowered
    assert ["3 -> 0", "2 -> 3", "1 -> 2", "0 -> 1"] == re.findall(r"level (\d -> \d)", told)


def test_the_page_lowers_a_bar(bench: Ladder) -> None:
    """A lower bar is a wider right, a higher one is not."""
    lower = bench.plan(BARS.replace("100", "10"))
    higher = bench.plan(BARS)

    assert ("autonomy level 2", True) == lower
    assert ("autonomy level 2", False) == higher
