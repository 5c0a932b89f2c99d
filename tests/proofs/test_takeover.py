"""The verdict on takeovers fails for one that was late or took nothing, and for any breach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proofs.takeover import CUT_OFF, GOALS, Found, Sample, judge

GOOD = Sample(seconds=4.0, taken=9, left_s=3.0)


def _found(name: str, sample: Sample, *breaches: str) -> Found:
    samples = {kind: [GOOD, GOOD] for kind in GOALS}
    return Found(samples=samples | {name: [GOOD, sample]}, breaches=list(breaches))


def test_claim_holds_if_all_were_in_time() -> None:
    """The slowest of each kind counts, and the middle is told."""
    verdict = judge(_found("killed", replace(GOOD, seconds=4.5)), absent=None)

    assert verdict.holds
    expected = {"median_s": 4.2, "worst_s": 4.5, "samples": 2, "runs": [9, 9]}
    assert expected == verdict.figures["killed"]


@pytest.mark.parametrize(
    "found",
    [
        _found("killed", replace(GOOD, seconds=5.1)),
        _found("stopped", replace(GOOD, taken=0)),
        _found(CUT_OFF, replace(GOOD, left_s=None)),
        _found(CUT_OFF, replace(GOOD, left_s=4.1)),
        _found("killed", GOOD, "an effect was done twice"),
        Found(),
    ],
    ids=["late", "nothing taken", "never left", "left too late", "doubled", "no sample"],
)
def test_claim_fails_for_one_bad_sample(found: Found) -> None:
    """One of many is enough."""
    assert not judge(found, absent=None).holds


def test_machine_without_two_hosts_says_so() -> None:
    """What was not tried is named, with the reason."""
    verdict = judge(_found("killed", GOOD), absent="only root makes network namespaces")

    assert "absent: only root makes network namespaces" == verdict.figures["two_hosts"]
