"""The points of the crash proof are those that the source names, and none may go unvisited."""

from __future__ import annotations

from interlock.testing.recorder_project import CLASSES
from proofs.effects_crash import IN_UNDO, IN_UNDO_LATE, UNDO, UNDO_LATE, Found, judge
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


def test_point_of_an_undo_that_nobody_died_at_fails_the_claim() -> None:
    """That another call was killed at a point of this name does not count."""
    undone = IN_UNDO - {"undo.begin.after"}
    verdict = judge(_found(NAMED, undone=undone), named=NAMED, seconds=1.0)

    assert not verdict.holds
    assert ["sqlite: undo.begin.after (undo of a failed run)"] == verdict.figures["unvisited"]


def test_lanes_of_a_database_count_together() -> None:
    """Who died in one lane, and what broke in another."""
    (one,) = _found({"send.before"}).values()
    (other,) = _found({"send.after"}, "I3: twice").values()

    both = one.and_of(other)

    assert {("keyed", "send.before"), ("keyed", "send.after")} <= both.killed.keys()
    assert (("I3: twice",), 2) == (both.breaches, both.effects)


def test_breach_fails_the_claim() -> None:
    """One sentence of the comparison is enough."""
    assert not judge(_found(NAMED, "I3: twice"), named=NAMED, seconds=1.0).holds


def _found(visited: set[str], *breaches: str, undone: frozenset[str] = IN_UNDO) -> dict[str, Found]:
    killed = {(effect_class, point): 1 for effect_class in CLASSES for point in visited}
    killed |= {(UNDO, point): 1 for point in IN_UNDO & undone}
    killed |= {(UNDO_LATE, point): 1 for point in IN_UNDO_LATE}
    return {"sqlite": Found(killed=killed, missed=(), breaches=breaches, effects=1)}
