"""The verdict on the search fails for a broken promise, for a missed mutant, and for lost time."""

from __future__ import annotations

import pytest

from proofs.protocol_model import judge
from proofs.protocol_mutants import MUTANTS
from proofs.protocol_world import Found

QUIET, LOUD = Found(states=9, trace=None), Found(states=2, trace=("send", "done twice"))


@pytest.mark.parametrize(
    ("of_class", "of_mutants", "seconds", "holds"),
    [
        (QUIET, LOUD, 1.0, True),
        (LOUD, LOUD, 1.0, False),
        (QUIET, QUIET, 1.0, False),
        (QUIET, LOUD, 31.0, False),
    ],
)
def test_claim_holds_only_if_the_search_is_clean_and_sharp(
    of_class: Found, of_mutants: Found, seconds: float, *, holds: bool
) -> None:
    """No class may be broken, every mutant must be, and the search must end in time."""
    refused = dict.fromkeys(MUTANTS, of_mutants)

    verdict = judge({"blind": of_class}, refused, seconds=seconds)

    assert holds is verdict.holds
