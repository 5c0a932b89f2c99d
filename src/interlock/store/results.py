"""Results of evaluation suites, one row per run of a suite; append-only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from interlock.domain.canonical import JsonObject
from interlock.store.columns import pack, unpack_object
from interlock.store.tables.seen import eval_result as table
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """What a suite said of a release; `suite_digest` fixes the cases, `body` holds the scores."""

    result_id: str
    suite: str
    suite_digest: str
    release: int
    body: JsonObject
    verdict: str
    at_us: int


def put_result(
    tx: Tx, *, suite: str, suite_digest: str, release: int, body: JsonObject, verdict: str
) -> SuiteResult:
    """Append a result and return it."""
    result = SuiteResult(
        result_id=tx.new_id(),
        suite=suite,
        suite_digest=suite_digest,
        release=release,
        body=body,
        verdict=verdict,
        at_us=tx.now_us,
    )
    tx.connection.execute(
        table.insert().values(
            result_id=result.result_id,
            suite=suite,
            suite_digest=suite_digest,
            release=release,
            body=pack(body),
            verdict=verdict,
            at_us=result.at_us,
        )
    )
    return result


def latest_result(tx: Tx, suite: str) -> SuiteResult | None:
    """Return the newest result of a suite, or None."""
    query = select(table).where(table.c.suite == suite)
    query = query.order_by(table.c.at_us.desc(), table.c.result_id.desc()).limit(1)
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        return None
    return SuiteResult(
        result_id=row["result_id"],
        suite=row["suite"],
        suite_digest=row["suite_digest"],
        release=row["release"],
        body=unpack_object(row["body"]),
        verdict=row["verdict"],
        at_us=row["at_us"],
    )
