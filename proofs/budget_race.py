"""Fifty callers that reserve at once never pass a budget, and all that fits is let through.

In each of 1,000 races on SQLite, and as many on Postgres, threads reserve amounts of two budgets
together; each race has a run, and so accounts, of its own.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from interlock.domain.budget import Budget, Cost
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import RunId, TenantId, WorkflowName
from interlock.domain.run import Run, RunState, StartRequest, TriggerRef
from interlock.store import budgets, migrate
from interlock.store.engine import Database
from proofs.verdict import Verdict, say, sized
from scripts import postgres

RACES, RACES_LONG = 1_000, 10_000
CALLERS = 50
WORKERS = 10
SEED = 7
_MONEY = Budget(
    name="money", title="Money", scope="run", of=None, period="run", unit="micro_usd", limit=97
)
_CALLS = replace(_MONEY, name="calls", unit="calls", limit=17)
_OF = (_CALLS, _MONEY)


def main() -> Verdict:
    """Race on both databases; no race may pass a limit, or refuse what had room to the end."""
    races = sized(RACES, long=RACES_LONG)
    figures: JsonObject = {"callers": CALLERS, "seed": SEED}
    overshoots = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(postgres.running_server())
        urls = {"sqlite": f"sqlite:///{folder / 'store.db'}", "postgres": server.create_database()}
        for kind, url in urls.items():
            db = Database(url)
            migrate.upgrade(db)
            stack.callback(db.close)
            threads = stack.enter_context(ThreadPoolExecutor(WORKERS))
            found = [_race(db, threads, number) for number in range(races)]
            overshoots += found.count(False)
            figures[f"{kind}_races"] = len(found)
            say(f"{kind}: {races} races, {found.count(False)} overshoots")
    return Verdict(value=overshoots, goal=0, holds=overshoots == 0, figures=figures)


def _race(db: Database, threads: ThreadPoolExecutor, number: int) -> bool:
    """Let all callers reserve; return whether what was let through is counted, and no more."""
    chance = random.Random(SEED + number)  # noqa: S311  # races, not secrets
    run = _run(number)
    wanted = [(f"{number}/{caller}", chance.randint(1, 12)) for caller in range(CALLERS)]

    def reserve(asked: tuple[str, int]) -> bool:
        holder, amount = asked
        cost = Cost(micro_usd=amount)
        return None is db.run(
            "race.reserve", lambda tx: budgets.reserve(tx, _OF, run, holder=holder, cost=cost)
        )

    taken = [
        amount
        for (_, amount), is_in in zip(wanted, threads.map(reserve, wanted), strict=True)
        if is_in
    ]
    with db.reading() as tx:
        money, calls = (budgets.standing(tx, of, of.account_of(run)) for of in (_MONEY, _CALLS))
    is_counted = (sum(taken), len(taken)) == (money.reserved, calls.reserved)
    # Whatever was refused at the end found no room.
    is_used = not calls.left or money.left < max(amount for _, amount in wanted)
    return (
        is_counted and is_used and money.reserved <= _MONEY.limit and calls.reserved <= _CALLS.limit
    )


def _run(number: int) -> Run:
    request = StartRequest(
        workflow=WorkflowName("race"),
        workflow_version=1,
        release=1,
        environment="dev",
        tenant=TenantId("default"),
        department="it",
        trigger=TriggerRef(kind="manual", source="race", key=str(number)),
        input=None,
    )
    return Run(
        run_id=RunId(f"race-{number}"),
        request=request,
        state=RunState.RUNNING,
        epoch=1,
        segment=0,
        recoveries=0,
        created_us=0,
    )
