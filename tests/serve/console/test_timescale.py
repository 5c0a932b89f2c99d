from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.serve.console.timescale import WIDTH, scale

SECOND_US = 1_000_000
moments = st.integers(min_value=0, max_value=10**12)
intervals = st.lists(st.tuples(moments, moments).map(sorted).map(tuple), max_size=12)


def test_busy_time_is_drawn_in_proportion() -> None:
    """Without long waits the axis is linear."""
    axis = scale(0, 10 * SECOND_US, [(0, 10 * SECOND_US)])

    assert [0.0, 20.0, 100.0] == [axis.at(s * SECOND_US) for s in (0, 2, 10)]


def test_long_wait_is_drawn_short() -> None:
    """An hour in which nothing is at work takes a seventh of the width, the work takes the rest."""
    hour_us = 3600 * SECOND_US

    axis = scale(
        0, hour_us + 2 * SECOND_US, [(0, SECOND_US), (hour_us + SECOND_US, hour_us + 2 * SECOND_US)]
    )

    (gap,) = [piece for piece in axis.pieces if piece.is_gap]
    assert 14.0 == gap.width
    assert gap.start_us == SECOND_US
    assert pytest.approx(100.0) == sum(piece.width for piece in axis.pieces)


def test_run_that_only_waits_is_linear() -> None:
    """If nothing was ever at work, there is nothing to draw larger."""
    axis = scale(0, 100, [])

    assert 50.0 == axis.at(50)


@given(start_us=moments, length_us=moments, busy=intervals, at_us=moments, later_us=moments)
def test_positions_rise_with_time_and_stay_inside(
    start_us: int, length_us: int, busy: list[tuple[int, int]], at_us: int, later_us: int
) -> None:
    """Whatever was busy when, a later moment is never drawn further left, nor outside."""
    axis = scale(start_us, start_us + length_us, busy)
    first, second = sorted((at_us, later_us))

    left, right = axis.at(first), axis.at(second)

    assert -1e-9 <= left <= right + 1e-9 <= WIDTH + 2e-9


@given(start_us=moments, length_us=moments, busy=intervals)
def test_ticks_are_few_and_in_order(
    start_us: int, length_us: int, busy: list[tuple[int, int]]
) -> None:
    """An axis has a handful of ticks, from left to right."""
    ticks = scale(start_us, start_us + length_us, busy).ticks()

    assert len(ticks) <= 30
    assert sorted(ticks) == ticks
