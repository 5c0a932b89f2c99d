from __future__ import annotations

import re
from collections import defaultdict

import pytest

from interlock.domain import errors
from interlock.domain.errors import (
    ConfigError,
    ContractError,
    InterlockError,
    ManifestError,
    PolicyError,
    Problem,
    StepFailedError,
    UnavailableError,
    did_you_mean,
)

# A name of its own in the tree; its code is the parent's, or that of a sibling in code.
SHARED_CODES = {
    "input.invalid": {"InputError", "ProblemsError"},
    "model.failed": {"ModelBusyError", "ModelFailedError"},
}


def _all_errors(root: type[InterlockError] = InterlockError) -> list[type[InterlockError]]:
    below = [found for child in root.__subclasses__() for found in _all_errors(child)]
    return [error for error in [root, *below] if error.__module__ == errors.__name__]


def _drawn() -> dict[str, str]:
    """Return each class of the tree in the docstring with the class it hangs from."""
    parents: dict[str, str] = {}
    open_at: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+Error)\b", line):
            depth, name = len(found.group(1)), found.group(2)
            open_at = [(at, above) for at, above in open_at if at < depth]
            parents[name] = open_at[-1][1] if open_at else "Exception"
            open_at.append((depth, name))
    return parents


def test_hierarchy_is_as_drawn() -> None:
    """The docstring draws each error under the one that it is a kind of."""
    assert {error.__name__: error.__mro__[1].__name__ for error in _all_errors()} == _drawn()


def test_codes_are_stable_names_of_one_error() -> None:
    """Each code is one error's, in lower case, but for those that callers handle alike."""
    by_code: dict[str, set[str]] = defaultdict(set)
    for error in _all_errors():
        by_code[error.code].add(error.__name__)

    assert {code: names for code, names in by_code.items() if len(names) > 1} == SHARED_CODES
    assert [] == [code for code in by_code if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", code)]


def test_only_what_is_away_may_be_retried() -> None:
    """An error is final unless the thing needed is away, or full, for now."""
    may = {
        "UnavailableError",
        "ModelBusyError",
        "IntakeFullError",
        "VersionMissingError",
        "UnreachableError",
    }
    assert may == {error.__name__ for error in _all_errors() if error.is_retryable}
    assert UnavailableError.is_retryable


def test_error_says_one_sentence() -> None:
    """The message is what people read; `str` gives the same."""
    error = InterlockError("the run `r` is gone")

    assert ("the run `r` is gone", "the run `r` is gone") == (error.message, str(error))


@pytest.mark.parametrize("kind", [ManifestError, ConfigError, PolicyError])
def test_problems_are_reported_together(
    kind: type[ManifestError | ConfigError | PolicyError],
) -> None:
    """Several problems are one error that lists each with its place and its mend."""
    problems = (
        Problem(path="a.yaml", line=3, message="unknown key `nmae`", fix="did you mean `name`?"),
        Problem(path="b.yaml", line=None, message="is empty"),
    )

    error = kind(problems)

    assert problems == error.problems
    assert "a.yaml:3: unknown key `nmae` (did you mean `name`?)\nb.yaml: is empty" == str(error)


def test_errors_carry_what_their_callers_need() -> None:
    """A broken contract names the place, a failed step the recorded code and the step."""
    broken = ContractError("is missing", pointer="/a")
    failed = StepFailedError("no", error_code="agent.stuck", step_name="solve")

    assert "/a" == broken.pointer
    assert ("agent.stuck", "solve") == (failed.error_code, failed.step_name)


def test_only_a_near_word_is_proposed() -> None:
    """A typing mistake gets the nearest known word, another word gets no guess."""
    assert "did you mean `host`?" == did_you_mean("hots", ["port", "host"])
    assert did_you_mean("zebra", ["port", "host"]) is None
