"""Climbing the autonomy ladder: what a workflow has shown, what is missing, and who signs.

A person proposes a promotion, another confirms it; both find the evidence met. Whoever may stop
things may lower a level at once. Nothing here ever raises a level by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from interlock.domain.autonomy import (
    EARNED_IN,
    HIGHEST,
    REVIEWED_OF,
    Bar,
    Rung,
    lower_bound,
    rung_key,
)
from interlock.domain.effect import Effect
from interlock.domain.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from interlock.domain.ids import EffectId, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.record import object_to_json
from interlock.domain.release import Release
from interlock.domain.tool import Environment
from interlock.domain.workflow import WorkflowSpec
from interlock.store import effects, ladder, registry, results, reviews, runs
from interlock.store.engine import Database
from interlock.store.ladder import AskedLevel, LevelChange
from interlock.store.reviews import Faults, Judged, Scope
from interlock.store.tx import Tx

ASKED_US = 24 * 3_600_000_000
"""How long a second person may confirm a promotion."""
CONFIRMS_HIGHEST = "security"
"""The team that one of the two people of a promotion to the highest level is of: the second."""
_DAY_US = 86_400_000_000
_KINDS = {1: "drafts", 2: "approved writes", 3: "unattended writes"}
_NEXT = 5
_ANSWERED = 2
"""The step for which people have answered before the write, so that nothing is reviewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a workflow has shown for its next step, and in sentences what is missing.

    `done` counts all drafts or writes of the step's kind, `judged` those of which people said
    something, `agreed` those that they left as they were. `reviews` are the next ones to review.
    """

    workflow: WorkflowName
    environment: Environment
    level: int
    step: int
    versions: str
    counted_from: int
    bar: Bar
    kind: str
    done: int
    judged: int
    agreed: int
    agreement: float
    days: float
    suites: dict[str, str]
    faults: Faults
    missing: tuple[str, ...]
    reviews: tuple[EffectId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A promotion that was confirmed (`change`), or that waits for a second person (`asked`)."""

    evidence: Evidence
    change: LevelChange | None
    asked: AskedLevel | None


def evidence_of(
    tx: Tx, release: Release, workflow: WorkflowName, environment: Environment
) -> Evidence:
    """Return what a workflow has shown since it acts as it does now.

    Raises `InputError` in `dev`, where nothing is earned, and `NotFoundError` where it has nothing
    to do; of one at the highest level it is what that level rests on.
    """
    spec, rung = _standing(release, workflow, environment)
    step = min(rung.level + 1, HIGHEST)
    bar = release.bar(step)
    of = Scope(
        tenant=spec.tenant, workflow=workflow, environment=environment, release=rung.counted_from
    )
    every = _of_kind(tx, step, of)
    sample = every if step == _ANSWERED else _sample(every, step)
    judged = [each for each in sample if each.is_agreed is not None]
    agreed = sum(bool(each.is_agreed) for each in judged)
    found = Evidence(
        workflow=workflow,
        environment=environment,
        level=rung.level,
        step=step,
        versions=rung.versions,
        counted_from=rung.counted_from,
        bar=bar,
        kind=_KINDS[step],
        done=len(every),
        judged=len(judged),
        agreed=agreed,
        agreement=round(lower_bound(agreed, len(judged)), 4),
        days=round((tx.now_us - every[0].at_us) / _DAY_US, 2) if every else 0.0,
        suites=results.verdicts(tx, workflow, rung.versions),
        faults=reviews.faults(tx, of),
        missing=(),
        reviews=tuple(e.effect_id for e in sample if e.is_agreed is None and step != _ANSWERED)[
            :_NEXT
        ],
    )
    can_undo = any(
        tool.compensation is not None
        for name in spec.every_tool
        if (tool := release.live(name, environment)) is not None
    )
    ceiling = spec.ceiling.get(environment, HIGHEST)
    missing = [*_missing(found, can_undo=can_undo)]
    if rung.level >= HIGHEST:
        missing = [f"it is at level {HIGHEST}, the highest"]
    elif step > ceiling:
        missing.insert(0, f"the workflow's file sets the ceiling {ceiling} for `{environment}`")
    return replace(found, missing=tuple(missing))


def promote(
    db: Database,
    workflow: WorkflowName,
    environment: Environment,
    *,
    by: Principal,
    reason: str,
) -> Promotion:
    """Raise a level by one step if the evidence is met and a second person asks for the same.

    Raises:
        ForbiddenError: not a person; or the one who confirms the highest level is not of the team.
        ConflictError: evidence is missing, with all that is; or another release came in between.
    """
    if by.kind is not PrincipalKind.USER:
        raise ForbiddenError(f"`{by.name}` is not a person; only people let agents do more")

    def sign(tx: Tx) -> Promotion:
        release = _live(tx)
        found = evidence_of(tx, release, workflow, environment)
        if found.missing:
            raise ConflictError(f"level {found.step} is not earned: {'; '.join(found.missing)}")
        first = ladder.find_asked(tx, workflow, environment)
        is_same = first is not None and (first.level, first.versions) == (
            found.step,
            found.versions,
        )
        if (
            first is None
            or not is_same
            or tx.now_us - first.at_us > ASKED_US
            or first.by == by.name
        ):
            asked = ladder.put_asked(
                tx,
                workflow,
                environment,
                level=found.step,
                versions=found.versions,
                by=by.name,
                reason=reason,
            )
            return Promotion(evidence=found, change=None, asked=asked)
        if found.step == HIGHEST and CONFIRMS_HIGHEST not in by.groups:
            raise ForbiddenError(
                f"level {HIGHEST} is confirmed by somebody of the team `{CONFIRMS_HIGHEST}`"
            )
        key = rung_key(workflow, environment)
        rung = replace(
            release.ladder[key],
            level=found.step,
            by=first.by,
            confirmed_by=by.name,
            reason=first.reason,
        )
        change = ladder.lift(tx, key, rung, evidence=object_to_json(found))
        ladder.drop_asked(tx, workflow, environment)
        return Promotion(evidence=found, change=change, asked=None)

    return db.run("autonomy.promote", sign)


def demote(
    db: Database,
    workflow: WorkflowName,
    environment: Environment,
    *,
    level: int,
    by: Principal,
    reason: str,
) -> LevelChange:
    """Lower a level at once; runs under way feel it at their next call.

    Raises `ConflictError` if it is no higher than that.
    """

    def write(tx: Tx) -> LevelChange:
        _standing(_live(tx), workflow, environment)
        ladder.drop_asked(tx, workflow, environment)
        wanted = {rung_key(workflow, environment): level}
        changed = ladder.lower(tx, wanted, reason=reason, by=by.name)
        if not changed:
            raise ConflictError(f"`{workflow}` is not above level {level} in `{environment}`")
        return changed[0]

    return db.run("autonomy.demote", write)


def review(
    db: Database, effect_id: EffectId, *, by: Principal, is_agreed: bool, note: str | None
) -> Judged:
    """Write whether a person would have left a draft, or an unattended write, as it is.

    In their order: the oldest one that nobody has reviewed comes first, so that nobody chooses.

    Raises:
        ForbiddenError: not an approver of the team that owns the workflow, or who asked for the
            run or answers for its agent.
        ConflictError: it is not the next one, or is none that is reviewed.
    """
    if not is_agreed and not (note and note.strip()):
        raise InputError("say what is wrong with it: who does not agree leaves a note")

    def write(tx: Tx) -> Judged:
        effect = effects.get(tx, effect_id)
        release = _live(tx)
        _check_reviewer(tx, release, effect, by)
        workflow, environment = WorkflowName(effect.workflow), effect.environment
        found = evidence_of(tx, release, workflow, environment)
        if effect_id not in found.reviews[:1]:
            following = f"; the next one is `{found.reviews[0]}`" if found.reviews else ""
            raise ConflictError(f"the call `{effect_id}` is not up for review{following}")
        reviews.put(tx, effect, is_agreed=is_agreed, note=note, by=by.name)
        return Judged(effect_id=effect_id, at_us=tx.now_us, is_agreed=is_agreed)

    return db.run("autonomy.review", write)


def _live(tx: Tx) -> Release:
    number = registry.live_number(tx)
    return registry.get_release(tx, number) if number else Release()


def _standing(
    release: Release, workflow: WorkflowName, environment: Environment
) -> tuple[WorkflowSpec, Rung]:
    if environment not in EARNED_IN:
        raise InputError(
            f"in `{environment}` the workflow's file declares the level; none is earned"
        )
    rung = release.ladder.get(rung_key(workflow, environment))
    if workflow not in release.workflows or rung is None:
        raise NotFoundError(f"there is no workflow `{workflow}` with a tool in `{environment}`")
    return release.workflows[workflow], rung


def _of_kind(tx: Tx, step: int, of: Scope) -> list[Judged]:
    if step == _ANSWERED:
        return reviews.asked(tx, of)
    return reviews.drafts(tx, of) if step == 1 else reviews.unattended(tx, of)


def _sample(every: list[Judged], step: int) -> list[Judged]:
    """Return those that people look at: by their ids, which nobody chooses."""
    return [each for each in every if int(each.effect_id[-1], 16) % REVIEWED_OF[step] == 0]


def _missing(found: Evidence, *, can_undo: bool) -> list[str]:
    bar, faults = found.bar, found.faults
    counted = found.done if found.step == HIGHEST else found.judged
    missing = []
    if counted < bar.count:
        missing.append(f"{counted} of {bar.count} {found.kind} are there")
    if found.agreement < bar.agreement:
        missing.append(
            f"people left {found.agreed} of {found.judged} as they were: at least"
            f" {found.agreement:.2f} of all, and {bar.agreement:.2f} is needed"
        )
    if found.days < bar.days:
        missing.append(f"the first is {found.days:.1f} days old, and {bar.days} are needed")
    failed = sorted(name for name, verdict in found.suites.items() if verdict != results.PASSED)
    if failed or not found.suites:
        told = f"the suite `{failed[0]}` was not passed" if failed else "no suite was passed"
        missing.append(f"{told} by exactly these versions")
    if faults.unrecorded:
        missing.append(f"{faults.unrecorded} calls lack their span, decision or row")
    if found.step > 1:
        told_of = {
            "calls were sent without an allow": faults.forbidden,
            "writes were doubled": faults.duplicates,
            "calls are parked": faults.parked,
            "runs are set aside": faults.set_aside,
        }
        missing += [f"{count} {what}" for what, count in told_of.items() if count]
    if found.step == HIGHEST and can_undo and not faults.undone:
        missing.append("no write was ever undone, so that undoing is not drilled")
    return missing


def _check_reviewer(tx: Tx, release: Release, effect: Effect, by: Principal) -> None:
    spec = release.workflows.get(WorkflowName(effect.workflow))
    run = runs.get(tx, effect.run_id)
    if spec is None or run.request.tenant != by.tenant:
        raise NotFoundError(f"there is no call `{effect.effect_id}`")
    if by.kind is not PrincipalKind.USER or Role.APPROVER not in by.roles:
        raise ForbiddenError(f"`{by.name}` is not an approver; only people with that role review")
    if spec.owner not in by.groups:
        raise ForbiddenError(f"`{by.name}` is not of `{spec.owner}`, which owns the workflow")
    agents = [release.agents.get(seat.agent) for seat in effect.seats]
    sponsors = {agent.sponsor for agent in agents if agent is not None}
    if by.name in {run.request.user, *sponsors}:
        raise ForbiddenError(f"`{by.name}` asked for this call, or sponsors its agent")
