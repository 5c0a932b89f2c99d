"""Applying a project: shown as a diff first, then stored as a release, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from interlock.domain.canonical import Json
from interlock.domain.clock import from_us
from interlock.domain.errors import ConflictError
from interlock.domain.ids import ToolName
from interlock.domain.ladder import carried
from interlock.domain.record import object_to_json
from interlock.domain.release import Release, pin_of
from interlock.domain.tool import Environment
from interlock.manifest.diff import Diff, diff
from interlock.manifest.load import Lint, load
from interlock.policy.lint import check
from interlock.store import ladder, registry, results
from interlock.store.engine import Database
from interlock.store.registry import Asked
from interlock.store.tx import Tx

_BACK = 50
"""How many releases are looked at for what was live before."""
MOVED = "the project or the live release changed since the plan; plan again"
ASKED_US = 24 * 3_600_000_000
"""How long a second person may ask for what a first one has asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A candidate release and how it differs from the live one.

    `waits` says who asked for it, if it is not applied before a second person asks too.
    """

    release: Release
    diff: Diff
    waits: Asked | None = None


def plan(db: Database, files: Mapping[str, str], *, lint: Lint = check) -> Plan:
    """Load a project's files and compare them with the live release; nothing is stored.

    `lint` checks the policies; whoever knows the models of the installation gives one that does.

    Raises:
        ManifestError: carries every problem found.
    """
    with db.reading() as tx:
        return _plan(tx, _live(tx), files, lint)


def apply(
    db: Database,
    files: Mapping[str, str],
    *,
    by: str,
    expected_diff_digest: str | None = None,
    takes_two: bool = False,
    lint: Lint = check,
) -> Plan:
    """Store a project as the next release and return it with its number.

    All or nothing; a project that changes nothing makes no release. With `expected_diff_digest`
    only the diff that was shown is applied. If it `takes_two`, another person has to have asked for
    the same diff within a day; who asks first is noted. `lint` as for `plan`.

    Raises:
        ManifestError: carries every problem found; nothing was stored.
        ConflictError: the diff is another than the one expected; plan again.
    """

    def store(tx: Tx) -> Plan:
        live = _live(tx)
        planned = _plan(tx, live, files, lint)
        if expected_diff_digest not in {None, planned.diff.digest}:
            raise ConflictError(MOVED)
        if registry.digest_of(live) == registry.digest_of(planned.release) and live.number:
            return Plan(release=live, diff=planned.diff)
        first = registry.find_asked(tx, planned.diff.digest) if takes_two else None
        is_asked = first is not None and first.by != by and tx.now_us - first.at_us <= ASKED_US
        if takes_two and not is_asked:
            return replace(planned, waits=registry.put_asked(tx, planned.diff.digest, by=by))
        asked_by = None if first is None else first.by
        release = registry.put_release(tx, planned.release, by=by, asked_by=asked_by)
        ladder.note_carried(tx, live, release)
        return Plan(release=release, diff=planned.diff)

    return db.run("release.apply", store)


def goes_back(tx: Tx, candidate: Release) -> bool:
    """Return whether all that changes is which versions of tools are live, to such as were before.

    Each environment that gets another version has had it in one of the last releases, on the same
    server.
    """
    live = _live(tx)
    parts = {each.name for each in fields(Release)} - {"number"}
    moved = {name for name in parts if getattr(live, name) != getattr(candidate, name)}
    if not moved or moved - {"tools", "old_tools", "live_versions", "ladder"}:
        return False
    wanted = {(name, place): _had(candidate, name, place) for name, place in _bound(candidate)}
    every = [*candidate.tools.values(), *candidate.old_tools.values()]
    known = [live.tool_version(tool.name, tool.version) for tool in every]
    if any(
        was is None or pin_of(was) != pin_of(tool) for was, tool in zip(known, every, strict=True)
    ):
        return False
    for number in range(live.number, max(0, live.number - _BACK), -1):
        before = registry.get_release(tx, number)
        wanted = {key: had for key, had in wanted.items() if _had(before, *key) != had}
        if not wanted:
            return True
    return False


def _bound(release: Release) -> Iterator[tuple[ToolName, Environment]]:
    for name in release.tools:
        for place in release.every_live(name):
            yield name, place


def _had(release: Release, name: ToolName, place: Environment) -> Json:
    """Return the version of a tool that an environment has, and how it is bound."""
    tool = release.live(name, place)
    return None if tool is None else [pin_of(tool), object_to_json(tool.environments[place])]


def _plan(tx: Tx, live: Release, files: Mapping[str, str], lint: Lint) -> Plan:
    today = from_us(tx.now_us).date().isoformat()
    loaded = load(files, previous=live, lint=lint, today=today)
    levels = carried(
        live,
        loaded,
        is_passed=lambda workflow, versions: results.is_passed(tx, workflow, versions),
    )
    candidate = replace(loaded, ladder=levels)
    return Plan(release=candidate, diff=diff(live, candidate))


def _live(tx: Tx) -> Release:
    number = registry.live_number(tx)
    return registry.get_release(tx, number) if number else Release()
