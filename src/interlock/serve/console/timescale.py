"""The time axis of a waterfall: long stretches in which everything only waits are drawn short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 100.0
"""Positions are per cent of the chart's width."""
_GAP_WIDTH = 14.0
_LEAST_GAP_SHARE = 0.3
_MOST_GAPS = 3
_STEPS_US = tuple(
    unit * factor for unit in (1000, 10_000, 100_000) for factor in (1, 2, 5)
) + tuple(
    seconds * 1_000_000
    for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
)
_TICKS = 5

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of time and where it is drawn; in a gap nothing happened."""

    start_us: int
    end_us: int
    x: float
    width: float
    is_gap: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps moments to positions, piece by piece."""

    pieces: tuple[Piece, ...]

    def at(self, moment_us: int) -> float:
        """Return the position of a moment; what lies outside is drawn at the edge."""
        for piece in self.pieces:
            if moment_us <= piece.end_us:
                length = max(1, piece.end_us - piece.start_us)
                share = max(0, moment_us - piece.start_us) / length
                return piece.x + share * piece.width
        return WIDTH

    def ticks(self) -> list[tuple[float, int]]:
        """Return positions and times since the start that are worth a line; none inside a gap."""
        start_us = self.pieces[0].start_us
        busy_us = sum(p.end_us - p.start_us for p in self.pieces if not p.is_gap)
        step_us = next((s for s in _STEPS_US if busy_us / s <= _TICKS), _STEPS_US[-1])
        found: list[tuple[float, int]] = []
        for piece in (piece for piece in self.pieces if not piece.is_gap):
            since = piece.start_us - start_us
            first = -(-since // step_us) * step_us
            last = piece.end_us - start_us
            count = min(_TICKS + 1, max(0, (last - first) // step_us + 1))
            found.extend(
                (self.at(start_us + first + n * step_us), first + n * step_us) for n in range(count)
            )
        return found


def scale(start_us: int, end_us: int, busy: Iterable[Interval]) -> Scale:
    """Return the scale of a stretch of time, given when something was at work in it."""
    end_us = max(end_us, start_us + 1)
    gaps = sorted(_gaps(start_us, end_us, busy), key=lambda gap: gap[0] - gap[1])[:_MOST_GAPS]
    long = sorted(gap for gap in gaps if gap[1] - gap[0] > _LEAST_GAP_SHARE * (end_us - start_us))
    busy_us = (end_us - start_us) - sum(end - begin for begin, end in long)
    if not long or busy_us <= 0:
        whole = Piece(start_us=start_us, end_us=end_us, x=0.0, width=WIDTH, is_gap=False)
        return Scale(pieces=(whole,))
    per_us = (WIDTH - _GAP_WIDTH * len(long)) / busy_us
    pieces: list[Piece] = []
    x, at_us = 0.0, start_us
    for begin, end in [*long, (end_us, end_us)]:
        for piece_end, is_gap in ((begin, False), (end, True)):
            if piece_end > at_us:
                width = _GAP_WIDTH if is_gap else (piece_end - at_us) * per_us
                pieces.append(
                    Piece(start_us=at_us, end_us=piece_end, x=x, width=width, is_gap=is_gap)
                )
                x, at_us = x + width, piece_end
    return Scale(pieces=tuple(pieces))


def _gaps(start_us: int, end_us: int, busy: Iterable[Interval]) -> list[Interval]:
    gaps: list[Interval] = []
    at_us = start_us
    # A span may reach past the end, as that of a lost worker's call: only what is inside counts.
    for begin, end in sorted((min(begin, end_us), min(end, end_us)) for begin, end in busy):
        if begin > at_us:
            gaps.append((at_us, begin))
        at_us = max(at_us, end)
    if end_us > at_us:
        gaps.append((at_us, end_us))
    return gaps
