from __future__ import annotations

import pytest

from interlock.domain.autonomy import BARS, lower_bound


@pytest.mark.parametrize(("step", "wrong"), [(1, 1), (2, 2), (3, 3)])
def test_bars_allow_so_many_wrong_ones_at_their_least_count(step: int, wrong: int) -> None:
    """Of 20 drafts one, of 50 approved writes two, of 200 unattended ones three."""
    bar = BARS[step]

    assert lower_bound(bar.count - wrong, bar.count) >= bar.agreement
    assert lower_bound(bar.count - wrong - 1, bar.count) < bar.agreement


@pytest.mark.parametrize(
    ("agreed", "judged", "bound"),
    [(0, 0, 0.0), (0, 10, 0.0), (10, 10, 0.7225), (1, 1, 0.2065), (81, 100, 0.7222)],
)
def test_lower_bound_is_that_of_wilson(agreed: int, judged: int, bound: float) -> None:
    """As in tables of the score interval; it never says more than the share."""
    found = lower_bound(agreed, judged)

    assert bound == round(found, 4)
    assert found <= (agreed / judged if judged else 0)
