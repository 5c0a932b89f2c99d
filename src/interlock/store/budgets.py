"""What is reserved and spent of budgets: a row for each account and window, locked by name.

A reservation is a conditional update, so those who come at once cannot pass a limit together. What
holds it is a row as well: a crash between reserving and settling loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, exists, func, select, update

from interlock.domain.budget import Budget, Cost, Standing
from interlock.domain.run import Run
from interlock.store.statement import Row, Statement
from interlock.store.tables.calls import budget_hold as holds
from interlock.store.tables.calls import budget_window as table
from interlock.store.tx import Tx

_other = table.alias()
_MINE = and_(
    table.c.budget == bindparam("of_budget"),
    table.c.account == bindparam("of_account"),
    table.c.start_us == bindparam("of_start"),
)
_CLOSED = exists().where(
    _other.c.budget == bindparam("of_budget"),
    _other.c.account == bindparam("of_account"),
    _other.c.closed_at >= bindparam("most"),
)
_ADD = (
    update(table)
    .where(_MINE)
    .values({table.c.reserved: table.c.reserved + bindparam("amount")})
    .returning(table.c.budget)
)
_RESERVE = Statement(
    _ADD.where(
        table.c.spent + table.c.reserved + bindparam("amount") <= bindparam("most"), ~_CLOSED
    )
)
_RESERVE_ANYWAY = Statement(_ADD)
_STANDING = Statement(
    select(table.c.start_us, table.c.spent, table.c.reserved, table.c.closed_at).where(
        table.c.budget == bindparam("of_budget"), table.c.account == bindparam("of_account")
    )
)
_HOLDS = Statement(
    select(holds).where(holds.c.holder == bindparam("of_holder")).order_by(holds.c.budget)
)
_RELEASE = Statement(holds.delete().where(holds.c.holder == bindparam("of_holder")))
_SETTLE = Statement(
    update(table)
    .where(_MINE)
    .values(
        {
            table.c.reserved: table.c.reserved - bindparam("amount"),
            table.c.spent: table.c.spent + bindparam("real"),
        }
    )
)
_CLOSE = Statement(update(table).where(_MINE).values({table.c.closed_at: bindparam("most")}))


def reserve(
    tx: Tx, budgets: Sequence[Budget], run: Run, *, holder: str, cost: Cost, is_forced: bool = False
) -> Standing | None:
    """Hold what something may cost of every budget, or of none; return the one that has too little.

    `budgets` are in the order of their names. If `is_forced` no limit counts.
    """
    for budget in budgets:
        window, account = budget.window_at(tx.now_us), budget.account_of(run)
        key = {"budget": budget.name, "account": account, "start_us": window.start_us}
        tx.insert_once(table, {**key, "spent": 0, "reserved": 0})
        amount = cost.in_unit(budget.unit)
        mine = _mine(key)
        asked = mine | {"amount": amount}
        if is_forced:
            taken = tx.rows(_RESERVE_ANYWAY, asked)
        else:
            taken = tx.rows(_RESERVE, asked | {"most": budget.limit})
        if not taken:
            settle(tx, holder, Cost(micro_usd=0, calls=0))
            return standing(tx, budget, account)
        tx.insert(
            holds,
            {
                "holder": holder,
                **key,
                "run_id": run.run_id,
                "unit": budget.unit,
                "amount": amount,
                "most": budget.limit,
            },
        )
    return None


def settle(tx: Tx, holder: str, real: Cost | None = None) -> list[str]:
    """Give back what is held, and count as spent what it really cost; None is all that was held.

    A budget that was charged more than was held is closed until its limit is raised; returned are
    the names of those.
    """
    found, closed = tx.rows(_HOLDS, {"of_holder": holder}), []
    for hold in found:
        spent = hold["amount"] if real is None else real.in_unit(hold["unit"])
        mine = _mine(hold)
        tx.later(_SETTLE, mine | {"amount": hold["amount"], "real": spent})
        if spent > hold["amount"]:
            tx.later(_CLOSE, mine | {"most": hold["most"]})
            closed.append(hold["budget"])
    if found:
        tx.later(_RELEASE, {"of_holder": holder})
    return closed


def standing(tx: Tx, budget: Budget, account: str) -> Standing:
    """Return how a budget stands now."""
    window = budget.window_at(tx.now_us)
    rows = tx.rows(_STANDING, {"of_budget": budget.name, "of_account": account})
    mine = next((row for row in rows if row["start_us"] == window.start_us), None)
    return Standing(
        budget=budget,
        account=account,
        window=window,
        spent=0 if mine is None else mine["spent"],
        reserved=0 if mine is None else mine["reserved"],
        is_closed=any((row["closed_at"] or 0) >= budget.limit for row in rows),
    )


def accounts(tx: Tx, budget: Budget, *, limit: int) -> list[str]:
    """Return whose spending a budget has counted; of one for each run, the greatest spenders."""
    if budget.scope != "run":
        return [budget.of or ""]
    query = select(table.c.account).where(table.c.budget == budget.name)
    query = query.order_by((table.c.spent + table.c.reserved).desc(), table.c.account)
    return list(tx.connection.execute(query.limit(limit)).scalars())


def totals(tx: Tx) -> dict[str, tuple[int, int]]:
    """Return what is spent and reserved of each budget in all accounts and windows."""
    sums = func.sum(table.c.spent), func.sum(table.c.reserved)
    query = select(table.c.budget, *sums).group_by(table.c.budget)
    return {name: (int(a), int(b)) for name, a, b in tx.connection.execute(query)}


def _mine(row: Row) -> dict[str, object]:
    return {
        "of_budget": row["budget"],
        "of_account": row["account"],
        "of_start": row["start_us"],
    }
