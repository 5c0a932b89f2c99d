"""REST: budgets, how they stand in their windows and when they are spent at this pace."""

from __future__ import annotations

from fastapi import APIRouter

from interlock.domain.budget import Budget, Standing
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.ids import RunId
from interlock.domain.principal import Principal
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.serve.auth import App
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import StrictRoute
from interlock.store import budgets, runs
from interlock.store.tx import Tx

router = APIRouter(prefix="/budgets", tags=["budgets"], route_class=StrictRoute)
_MOST_RUNS = 20


@router.get("")
def list_budgets(app: App, reader: Reader) -> JsonObject:
    """List the budgets of the live release that are about the reader's tenant."""
    with app.db.reading() as tx:
        release = app.release(tx)
        own = [b for _, b in sorted(release.budgets.items()) if _is_told(release, reader, b)]
    return {"budgets": [object_to_json(budget) for budget in own]}


@router.get("/{name}")
def show_budget(app: App, reader: Reader, name: str) -> JsonObject:
    """Return a budget and how it stands now; of one for each run, those that spent most.

    Amounts are whole numbers of its unit. `forecast` is what will be spent at the end of the window
    at its pace so far, `reached_us` when that reaches the limit, null if not in this window.
    """
    with app.db.reading() as tx:
        release = app.release(tx)
        budget = release.budgets.get(name)
        if budget is None or not _is_told(release, reader, budget):
            raise NotFoundError(f"there is no budget `{name}`")
        accounts: list[Json] = [
            _row(budgets.standing(tx, budget, account), tx.now_us)
            for account in budgets.accounts(tx, budget, limit=_MOST_RUNS)
            if budget.scope != "run" or _is_own(tx, reader, account)
        ]
    return {**object_to_json(budget), "accounts": accounts}


def _is_told(release: Release, reader: Principal, budget: Budget) -> bool:
    """Return whether a budget is about something that the tenant of a reader has."""
    if budget.scope == "tenant":
        return budget.of == reader.tenant
    if budget.scope == "department":
        tenants = {w.tenant for w in release.workflows.values() if w.department == budget.of}
    else:
        tenants = {w.tenant for w in release.workflows.values() if budget.of in {None, w.name}}
    return bool(tenants & {None, reader.tenant})


def _is_own(tx: Tx, reader: Principal, account: str) -> bool:
    return runs.get(tx, RunId(account)).request.tenant == reader.tenant


def _row(standing: Standing, now_us: int) -> JsonObject:
    return {
        "account": standing.account,
        "spent": standing.spent,
        "reserved": standing.reserved,
        "left": standing.left,
        "is_soft_reached": standing.is_soft_reached,
        "is_closed": standing.is_closed,
        "start_us": standing.window.start_us,
        "end_us": standing.window.end_us,
        "forecast": standing.forecast(now_us),
        "reached_us": standing.reached_us(now_us),
    }
