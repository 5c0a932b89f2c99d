"""The points of the crash proof are those that the source names, and none may go unvisited."""

from __future__ import annotations

from interlock.testing.recorder_project import CLASSES
from proofs.effects_crash import Found, judge
from proofs.points import points, points_in

NAMED = set(points())


def test_points_are_read_from_the_source() -> None:
    """A transaction names two points, a call of `reach` the one that it says."""
    source = (
        "await durable.transact('call.intent', write)\n"
        "await durable.commit(name, write, kind='call.outcome')\n"
        "points.reach('reply.read')\n"
        "runner.run(name)\n"
    )

    transactions = ("call.intent", "call.outcome")
    names = {f"{name}.{at}" for name in transactions for at in ("before", "after")}
    assert names | {"reply.read"} == set(points_in(source))
    assert points() >= {"call.intent.before", "send.before", "reply.read", "run.claim.after"}


def test_claim_holds_if_every_point_was_visited_in_each_class() -> None:
    """All points on both databases, no breach, in time."""
    assert judge(_found(NAMED), named=NAMED, seconds=1.0).holds


def test_point_that_nobody_died_at_fails_the_claim() -> None:
    """One name more in the source is enough."""
    verdict = judge(_found(NAMED), named=NAMED | {"call.new.before"}, seconds=1.0)

    assert not verdict.holds
    assert ["sqlite: call.new.before"] == verdict.figures["unvisited"]


def test_breach_fails_the_claim() -> None:
    """One sentence of the comparison is enough."""
    assert not judge(_found(NAMED, "I3: twice"), named=NAMED, seconds=1.0).holds


def _found(visited: set[str], *breaches: str) -> dict[str, Found]:
    killed = {(effect_class, point): 1 for effect_class in CLASSES for point in visited}
    return {"sqlite": Found(killed=killed, missed=(), breaches=breaches, effects=1)}
