"""What people do to live runs from the front doors: pause, resume, signal, stop their calls."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

from interlock.calls.durable import Dispatch
from interlock.calls.road import Live
from interlock.calls.validate import target_of
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect, EffectState
from interlock.domain.errors import ConflictError, ForbiddenError, InputError, did_you_mean
from interlock.domain.ids import RunId
from interlock.domain.principal import Principal, PrincipalKind
from interlock.domain.release import Release
from interlock.domain.run import Run
from interlock.domain.switch import KillSwitch, LiftAsked, Scope, Target
from interlock.domain.tool import ENVIRONMENTS
from interlock.store import effects, registry, runs, switches
from interlock.store.engine import Database
from interlock.store.tx import Tx

_CONFIRM_US = 3_600_000_000
"""For how long a first person's word that a switch may go waits for that of a second."""
_MOST_LISTED = 1_000
"""How many calls in flight are looked at: more than any installation has."""


def pause(db: Database, dispatch: Dispatch, run_id: RunId) -> bool:
    """Let a run and those below it stand still at their next operation; False if none did."""
    return _with_descendants(db, "run.pause", run_id, dispatch.pause)


def resume(db: Database, dispatch: Dispatch, run_id: RunId) -> bool:
    """Let a paused or dead-lettered run and those below it go on; False if none was."""
    return _with_descendants(db, "run.resume", run_id, dispatch.resume)


def signal(
    db: Database,
    dispatch: Dispatch,
    run: Run,
    topic: str,
    value: Json,
    *,
    by: str,
    key: str | None,
) -> bool:
    """Send a signal to a run; False if this person sent one with this key before.

    Raises `InputError` for a topic that no `wait` step of its workflow names: approvals and the
    ends of children come by signals too, and only from where they are decided. Raises
    `ConflictError` if the run has ended.
    """
    with db.reading() as tx:
        workflow = registry.get_release(tx, run.request.release).workflows[run.request.workflow]
    topics = sorted({step.wait for step in workflow.steps if step.wait is not None})
    if topic not in topics:
        known = ", ".join(f"`{known}`" for known in topics) or "nothing"
        raise InputError(f"no step of `{workflow.name}` waits for `{topic}`, only for {known}")

    def send(tx: Tx) -> bool:
        if runs.lock_any(tx, run.run_id).state.is_final:
            raise ConflictError("the run has ended and hears nothing any more")
        dedupe_key = f"signal/{by}/{key or tx.new_id()}"
        return dispatch.signal(tx, run.run_id, topic, value, dedupe_key=dedupe_key)

    return db.run("run.signal", send)


def _with_descendants(
    db: Database, name: str, run_id: RunId, change: Callable[[Tx, RunId], bool]
) -> bool:
    """Change a run and all below it, one transaction each: whoever ends locks its parent too."""
    with db.reading() as tx:
        below = [run.run_id for run in runs.descendants(tx, run_id)]
    changes = [lambda tx, each=each: change(tx, each) for each in (run_id, *below)]
    has_changed = [db.run(name, one) for one in changes]
    return any(has_changed)


# --- kill switches


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A switch that is in force, and the calls in its scope that may have left before.

    Those were allowed before it was, and have no outcome yet. What is sent in its scope from a
    second after the acknowledgement on is none but those.
    """

    switch: KillSwitch
    in_flight: tuple[Effect, ...] = ()


def set_switch(
    db: Database,
    live: Callable[[Tx], Live],
    scope: Scope,
    *,
    by: Principal,
    reason: str,
    for_us: int | None,
    models: Collection[str],
) -> Acknowledged:
    """Stop all calls and model requests in a scope, until it is lifted or for a time.

    Raises `InputError` for a name that the live project does not have: it would stop nothing.
    """

    def write(tx: Tx) -> KillSwitch:
        check_names(live(tx).release, scope, models)
        expires_us = None if for_us is None else tx.now_us + for_us
        return switches.put(tx, by.tenant, scope, reason=reason, by=by.name, expires_us=expires_us)

    switch = db.run("kill.set", write)
    # After the commit: what is not seen here is decided, or looked at again, with the switch set.
    with db.reading() as tx:
        return Acknowledged(switch=switch, in_flight=in_flight(tx, live, switch))


def in_flight(tx: Tx, live: Callable[[Tx], Live], switch: KillSwitch) -> tuple[Effect, ...]:
    """Return the calls in the scope of a switch that may be under way, oldest first."""
    release = live(tx).release

    def aim(effect: Effect) -> Target:
        tool = release.tool_version(effect.tool, effect.tool_version)
        return target_of(runs.get(tx, effect.run_id), effect, tool)

    found = effects.list_effects(
        tx, tenant=switch.tenant, states=(EffectState.INTENT,), limit=_MOST_LISTED
    )
    return tuple(effect for effect in reversed(found) if switch.scope.covers(aim(effect)))


def lift_switch(
    db: Database,
    switch_id: str,
    *,
    by: Principal,
    reason: str,
    leaving: Scope | None = None,
) -> tuple[KillSwitch, KillSwitch | None]:
    """Lift a switch and set one for what is to stay stopped; return both as they are then.

    In `prod` a second person has to say the same within an hour of the first: until then the
    switch that is returned is not lifted. Raises `ForbiddenError` for a service, `ConflictError`
    for a switch that is not in force, `InputError` if `leaving` is not within its scope.
    """
    if by.kind is not PrincipalKind.USER:
        raise ForbiddenError(f"`{by.name}` is no person; only people lift kill switches")

    def write(tx: Tx) -> tuple[KillSwitch, KillSwitch | None]:
        switch = switches.get(tx, by.tenant, switch_id, is_locked=True)
        if not switch.is_in_force_at(tx.now_us):
            raise ConflictError(f"the kill switch `{switch_id}` is not in force any more")
        if leaving is not None and (leaving == switch.scope or not leaving.is_within(switch.scope)):
            raise InputError(
                f"what stays stopped has to be less than what the switch stops, {switch.scope}"
            )
        asked = LiftAsked(by=by.name, at_us=tx.now_us, reason=reason, leaving=leaving)
        first = _first_of_two(switch, asked) if switch.scope.touches_prod else asked
        if first is None:
            return switches.ask_lift(tx, switch, asked), None
        people = tuple(dict.fromkeys((first.by, by.name)))
        lifted = switches.lift(tx, switch, asked=asked, by=people)
        if leaving is None:
            return lifted, None
        narrower = switches.put(
            tx,
            switch.tenant,
            leaving,
            reason=switch.reason,
            by=by.name,
            expires_us=switch.expires_us,
        )
        return lifted, narrower

    return db.run("kill.lift", write)


def _first_of_two(switch: KillSwitch, asked: LiftAsked) -> LiftAsked | None:
    """Return what another person has said of lifting the switch, if it is the same and recent."""
    first = switch.lift_asked
    if first is None or first.by == asked.by or first.leaving != asked.leaving:
        return None
    return first if asked.at_us - first.at_us <= _CONFIRM_US else None


def is_stopped(db: Database, target: Target) -> bool:
    """Return whether a switch stops a call now."""
    with db.reading() as tx:
        return switches.stopping(tx, target) is not None


def check_names(release: Release, scope: Scope, models: Collection[str]) -> None:
    """Raise `InputError` for a part of a scope that is in no live file, nor in the settings."""
    workflows = release.workflows.values()
    known: dict[str, Collection[str]] = {
        "environment": ENVIRONMENTS,
        "department": {workflow.department for workflow in workflows},
        "workflow": release.workflows,
        "agent": release.agents,
        "tool": release.tools,
        "system": release.systems,
        "model": models,
    }
    for part in fields(scope):
        name = getattr(scope, part.name)
        if isinstance(name, str) and name not in known[part.name]:
            fix = did_you_mean(name, known[part.name])
            raise InputError(
                f"the live project has no {part.name} `{name}`{f', {fix}' if fix else ''}"
            )
