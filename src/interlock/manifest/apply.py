"""Applying a project: shown as a diff first, then stored as a release, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interlock.domain.clock import from_us
from interlock.domain.errors import ConflictError
from interlock.domain.release import Release
from interlock.manifest.diff import Diff, diff
from interlock.manifest.load import Lint, load
from interlock.policy.lint import check
from interlock.store import registry
from interlock.store.engine import Database
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A candidate release and how it differs from the live one."""

    release: Release
    diff: Diff


def plan(db: Database, files: Mapping[str, str], *, lint: Lint = check) -> Plan:
    """Load a project's files and compare them with the live release; nothing is stored.

    `lint` checks the policies; whoever knows the models of the installation gives one that does.

    Raises:
        ManifestError: carries every problem found.
    """
    with db.reading() as tx:
        live, now_us = _live(tx), tx.now_us
    return _plan(live, files, lint, now_us=now_us)


def apply(
    db: Database,
    files: Mapping[str, str],
    *,
    by: str,
    expected_diff_digest: str | None = None,
    lint: Lint = check,
) -> Plan:
    """Store a project as the next release and return it with its number.

    All or nothing; a project that changes nothing makes no release. With `expected_diff_digest`
    only the diff that was shown is applied. `lint` as for `plan`.

    Raises:
        ManifestError: carries every problem found; nothing was stored.
        ConflictError: the diff is another than the one expected; plan again.
    """

    def store(tx: Tx) -> Plan:
        live = _live(tx)
        planned = _plan(live, files, lint, now_us=tx.now_us)
        if expected_diff_digest not in {None, planned.diff.digest}:
            raise ConflictError(
                "the project or the live release changed since the plan; plan again"
            )
        if registry.digest_of(live) == registry.digest_of(planned.release) and live.number:
            return Plan(release=live, diff=planned.diff)
        return Plan(release=registry.put_release(tx, planned.release, by=by), diff=planned.diff)

    return db.run("release.apply", store)


def _plan(live: Release, files: Mapping[str, str], lint: Lint, *, now_us: int) -> Plan:
    today = from_us(now_us).date().isoformat()
    candidate = load(files, previous=live, lint=lint, today=today)
    return Plan(release=candidate, diff=diff(live, candidate))


def _live(tx: Tx) -> Release:
    number = registry.live_number(tx)
    return registry.get_release(tx, number) if number else Release()
