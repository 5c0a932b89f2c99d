from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError, ManifestError, Problem
from interlock.evals import suite as module
from interlock.evals.suite import Place, chosen, digest_of, read
from tests.evals.sample import SUITE

KINDS = [kind for kind in vars(module).values() if isinstance(kind, type) and is_dataclass(kind)]
KINDS = [kind for kind in KINDS if kind.__module__ == module.__name__]


def complain(place: Place, message: str) -> Problem:
    """Return a problem whose fix is the place."""
    return Problem(path="suite.yaml", line=1, message=message, fix="/".join(map(str, place)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite's folder with the files that `content` names."""
    (tmp_path / "script.yaml").write_text("rules: []")
    (tmp_path / "body.json").write_text("{}")
    return tmp_path


def content() -> JsonObject:
    """Return the content of a suite's file that is accepted."""
    case: JsonObject = {
        "id": "one",
        "title": "One case",
        "trigger": {"webhook": "desk", "body": "body.json", "deliver": 2},
        "script": "script.yaml",
        "people": [{"group": "owners", "answer": "approve"}],
        "expect": {
            "end": {"run": "succeeded", "outcome": "routed"},
            "writes": [{"tool": "desk.issue.update", "state": "confirmed_done"}],
            "world": [{"at": "tracker:/issues", "count": 1}],
            "forbid": [{"group": "egress"}],
            "labels_at_most": ["internal"],
        },
    }
    return {
        "suite": "desk",
        "project": "..",
        "workflow": "desk",
        "mode": "deterministic",
        "repeats": 2,
        "limits": {"steps": 5, "cost_micro_usd": 100, "wall_s": 10},
        "model": {"serve": ["model"]},
        "world": {"tracker": {"serve": ["tracker"], "export": ["export"]}},
        "references": ["tracker:/issues/*/ref"],
        "cases": [case],
    }


def test_suite_is_read_as_values(folder: Path) -> None:
    """What the file says is there, with enums and defaults."""
    suite = read(content(), folder, complain=complain)

    assert ("one", 2, "approve") == (
        suite.cases[0].id,
        suite.cases[0].trigger.deliver,
        suite.cases[0].people[0].answer,
    )
    assert "confirmed_done" == suite.cases[0].expect.writes[0].state
    assert (0, 0) == (
        suite.cases[0].expect.approvals.asked,
        suite.cases[0].expect.approvals.given,
    )


@pytest.mark.parametrize(
    ("place", "value", "at", "words"),
    [
        (("repeat",), 2, "repeat", "unknown key `repeat`"),
        (("repeats",), 0, "repeats", "greater than or equal to 1"),
        (("mode",), "sampled", "mode", "should be 'deterministic'"),
        (("cases", 0, "expect", "effects"), [], "cases/0/expect/effects", "unknown key `effects`"),
        (("cases", 0, "script"), "/etc/x", "cases/0/script", "inside the suite's folder"),
        (("cases", 0, "script"), "../x", "cases/0/script", "inside the suite's folder"),
        (("cases", 0, "script"), "gone.yaml", "cases/0/script", "there is no file `gone.yaml`"),
        (("cases", 0, "trigger"), {"webhook": "desk"}, "cases/0/trigger", "a webhook has a `body`"),
        (("references",), ["mail:/x"], "references", "no program of the world exports as `mail`"),
        (("references",), ["tracker"], "references/0", "must be <program>:/<pointer>"),
        (("cases",), [], "cases", "must not be empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    folder: Path, place: tuple[str | int, ...], value: object, at: str, words: str
) -> None:
    """Unknown keys, values out of bounds and files that are missing each name their place."""
    broken = content()
    target: object = broken
    for key in place[:-1]:
        assert isinstance(target, dict | list)
        target = target[key]  # type: ignore[index]  # a list has indexes here
    assert isinstance(target, dict)
    target[place[-1]] = value

    with pytest.raises(ManifestError) as raised:
        read(broken, folder, complain=complain)

    (problem,) = raised.value.problems
    assert at == problem.fix
    assert words in problem.message


def test_every_problem_is_told_at_once(folder: Path) -> None:
    """A missing key and an unknown one are reported together."""
    broken = content()
    del broken["limits"]
    broken["limit"] = {}

    with pytest.raises(ManifestError) as raised:
        read(broken, folder, complain=complain)

    assert ["`limits` is missing", "unknown key `limit`"] == sorted(
        problem.message for problem in raised.value.problems
    )


def test_case_ids_are_unique(folder: Path) -> None:
    """Results are told apart by the ids of their cases."""
    broken = content()
    cases = broken["cases"]
    assert isinstance(cases, list)
    cases.append(cases[0])

    with pytest.raises(ManifestError, match="the case `one` is there twice"):
        read(broken, folder, complain=complain)


def test_digest_is_over_every_file(folder: Path) -> None:
    """Another script or fixture is another suite; hidden files do not count."""
    before = digest_of(folder)

    (folder / ".hidden").write_text("x")
    assert before == digest_of(folder)
    (folder / "script.yaml").write_text("rules: [1]")
    assert before != digest_of(folder)


def test_cases_are_chosen_by_id() -> None:
    """No id means all cases; an unknown one is an error."""
    assert SUITE.cases == chosen(SUITE, ())
    assert SUITE.cases == chosen(SUITE, ("routed",))
    with pytest.raises(InputError, match="the suite `desk` has no case `else`"):
        chosen(SUITE, ("routed", "else"))


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_every_key_is_documented(kind: type) -> None:
    """The reference names each key that a suite's file may have."""
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "suites.md").read_text()

    assert [] == [field.name for field in fields(kind) if f"`{field.name}`" not in reference]
