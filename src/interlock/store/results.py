"""Results of evaluation suites, one row per run of a suite; append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from interlock.domain.autonomy import EARNED_IN
from interlock.domain.canonical import JsonObject
from interlock.store import ladder
from interlock.store.columns import pack, unpack_object, unpack_texts
from interlock.store.tables.seen import eval_result as table
from interlock.store.tx import Tx

PASSED, FAILED = "pass", "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """What a suite said of a workflow; `suite_digest` fixes the cases, `body` holds the scores.

    `versions` fix what was judged, as it is in each environment; empty if that is not known.
    """

    result_id: str
    suite: str
    suite_digest: str
    release: int
    body: JsonObject
    verdict: str
    workflow: str
    versions: tuple[str, ...]
    at_us: int


def put_result(
    tx: Tx,
    *,
    suite: str,
    suite_digest: str,
    release: int,
    body: JsonObject,
    verdict: str,
    workflow: str,
    versions: Sequence[str],
) -> SuiteResult:
    """Append a result and return it; one that failed lowers what acts as it was judged.

    `versions` are those of `ladder.versions_of` in the environments that the judged project is for.
    """
    result = SuiteResult(
        result_id=tx.new_id(),
        suite=suite,
        suite_digest=suite_digest,
        release=release,
        body=body,
        verdict=verdict,
        workflow=workflow,
        versions=tuple(versions),
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
            workflow=workflow,
            versions=pack(list(versions)),
            at_us=result.at_us,
        )
    )
    if verdict == FAILED:
        for environment in EARNED_IN:
            rung = ladder.rung_of(tx, workflow, environment)
            if rung is not None and rung.versions in result.versions:
                ladder.violated(tx, workflow, environment, f"its suite `{suite}` failed")
    return result


def verdicts(tx: Tx, workflow: str, versions: str) -> dict[str, str]:
    """Return what the newest result of each suite says of exactly these versions."""
    query = (
        select(table.c.suite, table.c.verdict)
        .where(
            table.c.workflow == workflow,
            table.c.versions.contains(f'"{versions}"', autoescape=True),
        )
        .order_by(table.c.at_us, table.c.result_id)
    )
    found = tx.connection.execute(query)
    return {row.suite: row.verdict for row in found}


def is_passed(tx: Tx, workflow: str, versions: str) -> bool:
    """Return whether a workflow has a suite, and every one was passed by exactly these versions."""
    found = verdicts(tx, workflow, versions).values()
    return bool(found) and all(verdict == PASSED for verdict in found)


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
        workflow=row["workflow"],
        versions=unpack_texts(row["versions"]),
        at_us=row["at_us"],
    )
