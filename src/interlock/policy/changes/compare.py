"""Finds calls that one world answers more leniently than another, or shows that there are none."""

from __future__ import annotations

from collections.abc import Iterator

import z3

from interlock.domain.decision import PolicyRequest
from interlock.policy.solve import Calls, UndecidedError, is_true, patient_solver

MOST_KINDS = 16
"""Kinds of calls of one seat with one tool that are told apart by what they needed and need."""


def more_lenient(before: Calls, after: Calls) -> Iterator[PolicyRequest]:
    """Yield a call for each way in which `after` is more lenient than `before`.

    It allows what the other never did, or without somebody's agreement that the other asks for.
    Both have the same arguments and share what no formula can say. When nothing more is yielded,
    there is nothing more. Raises `UndecidedError`.
    """
    was, now = before.needs(by_team=True), after.needs(by_team=True)
    never = z3.BoolVal(val=False)
    as_hard = (z3.Implies(need, now.get(team, never)) for team, need in was.items())
    marks = [before.allowed, *was.values(), *now.values()]
    solver = patient_solver()
    solver.add(*before.bounds, *after.bounds, after.allowed)
    solver.add(z3.Not(z3.And(before.allowed, *as_hard)))
    for _ in range(MOST_KINDS):
        answer = solver.check()
        if answer == z3.unsat:
            return
        if answer == z3.unknown:
            raise UndecidedError
        model = after.nicer(solver, marks)
        yield after.request(model)
        solver.add(z3.Or(*(mark != z3.BoolVal(is_true(model, mark)) for mark in marks)))
    raise UndecidedError
