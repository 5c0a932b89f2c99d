"""Fifty callers that reserve at once never pass a budget, and what is counted is what they spent.

In each of 1,000 races on SQLite, and as many on Postgres, callers reserve amounts of two budgets
together; each race has a run, and so accounts, of its own. In every other race all that was let in
stays held, and whatever fits has to be let in; in the others callers end at once: done for less
than they held, surely not done, or never known.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
SERVERS = 5
"""So many connection pools on Postgres share the callers, as servers would."""
SEED = 7
MOST = 12
_MONEY = Budget(
    name="money", title="Money", scope="run", of=None, period="run", unit="micro_usd", limit=97
)
_CALLS = replace(_MONEY, name="calls", unit="calls", limit=17)
_OF = (_CALLS, _MONEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What callers of one race have spent and hold, in micro-USD and calls."""

    spent: Cost
    held: Cost


def main() -> Verdict:
    """Race on both databases; no race may pass a limit, lose an amount or refuse what had room."""
    races = sized(RACES, long=RACES_LONG)
    figures: JsonObject = {"callers": CALLERS, "seed": SEED}
    broken = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(postgres.running_server())
        threads = stack.enter_context(ThreadPoolExecutor(CALLERS))
        urls = {"sqlite": f"sqlite:///{folder / 'store.db'}", "postgres": server.create_database()}
        for kind, url in urls.items():
            servers = [Database(url) for _ in range(1 if kind == "sqlite" else SERVERS)]
            for db in servers:
                stack.callback(db.close)
            migrate.upgrade(servers[0])
            found: list[bool] = []
            for number in range(races):
                found.append(_race(servers, threads, number))
                if len(found) % 250 == 0:
                    say(f"{kind}: {len(found)} races, {found.count(False)} broken")
            broken += found.count(False)
            figures[f"{kind}_races"] = len(found)
    return Verdict(value=broken, goal=0, holds=broken == 0, figures=figures)


def _race(servers: list[Database], threads: ThreadPoolExecutor, number: int) -> bool:
    """Let all callers come at once; return whether what was let in is counted, and no more."""
    run, ends = _run(number), number % 2 == 1

    def call(caller: int) -> Counted | None:
        db = servers[caller % len(servers)]
        chance = random.Random(SEED + number * CALLERS + caller)  # noqa: S311  # races, no secrets
        return _call(db, run, chance, holder=f"{number}/{caller}", ends=ends)

    let_in = [each for each in threads.map(call, range(CALLERS)) if each is not None]
    with servers[0].reading() as tx:
        stands = [budgets.standing(tx, of, of.account_of(run)) for of in _OF]
    are_counted = all(
        (each.spent, each.reserved)
        == (
            sum(counted.spent.in_unit(each.budget.unit) for counted in let_in),
            sum(counted.held.in_unit(each.budget.unit) for counted in let_in),
        )
        for each in stands
    )
    are_kept = all(each.spent + each.reserved <= each.budget.limit for each in stands)
    # Without an end nothing was given back, so who was refused found no room then and now.
    is_used = ends or any(each.left < (MOST if each.budget is _MONEY else 1) for each in stands)
    return are_counted and are_kept and is_used


def _call(
    db: Database, run: Run, chance: random.Random, *, holder: str, ends: bool
) -> Counted | None:
    """Reserve, and perhaps settle; None if there was no room."""
    nothing = Cost(micro_usd=0, calls=0)
    cost = Cost(micro_usd=chance.randint(1, MOST))
    refused = db.run(
        "race.reserve", lambda tx: budgets.reserve(tx, _OF, run, holder=holder, cost=cost)
    )
    if refused is not None:
        return None
    end = chance.choice(("done", "not_done", "unknown")) if ends else "unknown"
    if end == "unknown":
        return Counted(spent=nothing, held=cost)
    real = replace(cost, micro_usd=chance.randint(0, cost.micro_usd)) if end == "done" else nothing
    db.run("race.settle", lambda tx: budgets.settle(tx, holder, real))
    return Counted(spent=real, held=nothing)


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
