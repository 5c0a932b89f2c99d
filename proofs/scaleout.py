"""Two workers do 1.9 times and four 3.6 times the work of one, where steps wait for the network.

Every run has five governed calls that take 200 ms each, and there are as many runs for each worker.
A worker takes one run at a time, so that more workers are what makes more go on at the same time,
and the processors of a small machine are not what is measured.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from interlock.app import Interlock
from interlock.domain.canonical import Json
from proofs import plane
from proofs.verdict import Verdict, say, sized

WORKERS = (1, 2, 4)
GOALS = {2: 1.9, 4: 3.6}
RUNS = 12
AT_ONCE = 1
ROUNDS = 1
ROUNDS_LONG = 5
_ENOUGH_S = 120.0


def main() -> Verdict:
    """Measure rounds of 1, 2 and 4 workers in turn; the medians of the ratios count."""
    plane.quiet()
    rates: dict[int, list[float]] = {count: [] for count in WORKERS}
    with (
        plane.postgres_database() as database,
        plane.scratch() as folder,
        plane.installed(folder, database) as interlock,
    ):
        for number in range(sized(ROUNDS, long=ROUNDS_LONG)):
            for count in WORKERS:
                rates[count].append(_rate(interlock, folder, database, count))
                say(f"round {number + 1}, {count} workers: {rates[count][-1]:.2f} runs a second")
    ratios = {n: median(a / b for a, b in zip(rates[n], rates[1], strict=True)) for n in GOALS}
    value: Json = {str(count): round(ratio, 2) for count, ratio in ratios.items()}
    goal: Json = {str(count): least for count, least in GOALS.items()}
    shown: Json = {str(count): round(median(rate), 2) for count, rate in rates.items()}
    return Verdict(
        value=value,
        goal=goal,
        holds=all(ratios[count] >= least for count, least in GOALS.items()),
        figures={
            "runs_per_second": shown,
            "runs_per_worker": RUNS,
            "runs_at_once_per_worker": AT_ONCE,
        },
    )


def _rate(interlock: Interlock, folder: Path, database: str, count: int) -> float:
    """Return how many runs a second so many workers finish, from the first start to the last end.

    Both times are the database's, from the rows of the runs.
    """
    with plane.workers(folder, database, count, at_once=AT_ONCE):
        run_ids = plane.begin(interlock, plane.FIVE_PAUSES, RUNS * count)
        found = plane.ended(interlock, run_ids, timeout_s=_ENOUGH_S)
    plane.check_succeeded(found)
    first_us = min(run.started_us or 0 for run in found)
    return len(found) * 1e6 / (max(run.ended_us or 0 for run in found) - first_us)
