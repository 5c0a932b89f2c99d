"""The doctor: checks what this installation rests on and says what to do about what is wrong."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from interlock.app import INSTANCE_KEY, Interlock
from interlock.calls import reconcile
from interlock.config import ModelSettings
from interlock.domain.breaker import topic_of
from interlock.domain.errors import InterlockError
from interlock.domain.release import Release
from interlock.domain.run import Run, RunState
from interlock.runtime.retention import DAY_US, ROLE
from interlock.runtime.triggers import key_of, queues_of
from interlock.serve.queues.consumer import Standing
from interlock.serve.queues.loop import QueueLoop
from interlock.store import breakers, budgets, effects, leases, migrate, retention, runs, switches
from interlock.store.tx import Tx
from interlock.tools.sandbox.process import missing

_SKEW_US = 1_000_000
_NAMED = 3
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: what was checked, whether it is well, and what to do if not."""

    name: str
    is_ok: bool
    message: str


def examine(app: Interlock, queues: QueueLoop) -> tuple[Check, ...]:
    """Check database, clock, files, release, models, secrets, queues and workers.

    Changes nothing; `queues` are those that this process reads.
    """
    is_current = migrate.is_current(app.db)
    with app.db.reading() as tx:
        release = app.release(tx)
        first = (
            Check(name="database", is_ok=True, message=f"{app.db.version(tx)} answers"),
            Check(
                name="tables",
                is_ok=is_current,
                message="as this version needs them"
                if is_current
                else "of another version; stop all servers and start this one",
            ),
            _clock(app, tx),
            _files(app),
            Check(
                name="release",
                is_ok=release.number > 0,
                message=f"release {release.number} is live"
                if release.number
                else "nothing is applied; run `interlock apply FOLDER`",
            ),
        )
        last = (
            _workers(tx),
            _retention(app, tx),
            _dead_letters(tx),
            _versions(tx),
            _servers(tx),
            _switches(tx),
            _budgets(tx, release),
            _tools(release),
            sandbox(release),
        )
    # Secrets are opened in transactions of their own.
    return (*first, _models(app, release), _secrets(app, release), _queues(release, queues), *last)


def _clock(app: Interlock, tx: Tx) -> Check:
    if app.db.dialect == "sqlite":
        return Check(name="clock", is_ok=True, message="the database uses this machine's clock")
    skew_us = abs(tx.now_us - time.time_ns() // 1000)
    told = f"this machine and the database differ by {skew_us / 1_000_000:.3f} s"
    is_ok = skew_us < _SKEW_US
    return Check(name="clock", is_ok=is_ok, message=told if is_ok else f"{told}; set the clocks")


def _files(app: Interlock) -> Check:
    folder = app.config.data_dir
    kept = (folder, folder / INSTANCE_KEY)
    open_ones = [path for path in kept if path.exists() and path.stat().st_mode & _OTHERS]
    if open_ones:
        message = f"others may read `{open_ones[0]}`; run `chmod go= {open_ones[0]}`"
        return Check(name="files", is_ok=False, message=message)
    return Check(name="files", is_ok=True, message=f"`{folder}` is yours alone")


def _models(app: Interlock, release: Release) -> Check:
    wanted = {
        model: agent.name
        for agent in release.agents.values()
        for model in (agent.models if agent.is_outside else (agent.model,))
    }
    problems = [
        f"the agent `{agent}` wants the model `{model}`; set [models.{model}] in interlock.toml"
        for model, agent in sorted(wanted.items())
        if model not in app.config.models
    ]
    for name, settings in sorted(app.config.models.items()):
        if app.price(name, 1, 1) is None:
            problems.append(f"the model `{name}` has no price, so it is refused; declare one")
        if settings.api_key is not None:
            problems += _unreadable(app, settings.api_key)
    if problems:
        return Check(name="models", is_ok=False, message="; ".join(problems))
    told = ", ".join(f"{name} ({m.provider})" for name, m in sorted(app.config.models.items()))
    return Check(name="models", is_ok=True, message=told or "none, and no agent needs one")


def _secrets(app: Interlock, release: Release) -> Check:
    credentials, signing = set(_credentials(release)), set(_signing(release))
    references = sorted(credentials | signing)
    problems = [
        problem
        for one in references
        for problem in _unreadable(app, one) or (_unusable(app, one) if one in signing else ())
    ]
    if problems:
        return Check(name="secrets", is_ok=False, message="; ".join(problems))
    told = f"{len(references)} of the live release can be read from {app.credentials.place}"
    return Check(name="secrets", is_ok=True, message=told if references else "none are needed")


def uses_of(release: Release, models: Mapping[str, ModelSettings]) -> dict[str, list[str]]:
    """Return what uses each secret that a release and the settings name."""
    found: dict[str, set[str]] = {}
    for name in release.tools:
        for environment, tool in release.every_live(name).items():
            for reference in tool.environments[environment].references:
                found.setdefault(reference, set()).add(name)
    for workflow in release.workflows.values():
        for trigger in workflow.triggers:
            if trigger.secret is not None:
                found.setdefault(trigger.secret, set()).add(f"{workflow.name}/{trigger.name}")
    for queue in queues_of(release):
        if queue.secret is not None:
            found.setdefault(queue.secret, set()).add(queue.source)
    for model in models.values():
        if model.api_key is not None:
            found.setdefault(model.api_key, set()).add(f"model {model.name}")
    return {reference: sorted(names) for reference, names in found.items()}


def _credentials(release: Release) -> Iterator[str]:
    for name in release.tools:
        for environment, tool in release.every_live(name).items():
            yield from tool.environments[environment].references
    for queue in queues_of(release):
        if queue.secret is not None:
            yield queue.secret


def _signing(release: Release) -> Iterator[str]:
    for workflow in release.workflows.values():
        for trigger in workflow.triggers:
            if trigger.secret is not None:
                yield trigger.secret


def _queues(release: Release, queues: QueueLoop) -> Check:
    wanted = queues_of(release)
    if not wanted:
        return Check(name="queues", is_ok=True, message="no workflow takes messages")
    if not queues.is_running:
        message = f"{len(wanted)} in the live release; `interlock serve` reads them"
        return Check(name="queues", is_ok=True, message=message)
    told = [_standing(standing) for standing in queues.standing()]
    is_ok = all(standing.problem is None for standing in queues.standing())
    return Check(name="queues", is_ok=is_ok, message="; ".join(told) or "not read yet")


def _standing(standing: Standing) -> str:
    told = f"`{standing.queue.source}` {standing.problem or 'is read'}"
    told += f", {standing.accepted} messages accepted"
    if standing.set_aside:
        told += f", {standing.set_aside} set aside, the last as {standing.last_code}"
    return told


def _unreadable(app: Interlock, reference: str) -> list[str]:
    try:
        app.intake.resolve(reference)
    except InterlockError as error:
        return [error.message]
    return []


def _unusable(app: Interlock, reference: str) -> list[str]:
    """Check a secret that signs; it can be read."""
    try:
        key_of(app.intake.resolve(reference))
    except InterlockError as error:
        return [f"`{reference}`: {error.message}"]
    return []


def _workers(tx: Tx) -> Check:
    working = [one for one in leases.list_executors(tx) if one.lease_end_us > tx.now_us]
    queued = runs.count_by_state(tx).get(RunState.QUEUED, 0)
    leaving = sum(one.is_draining for one in working)
    drained = f" ({leaving} of them about to stop)" if leaving else ""
    told = f"{len(working)} at work{drained}, {queued} runs queued"
    if queued and not working:
        return Check(name="workers", is_ok=False, message=f"{told}; start `interlock serve`")
    return Check(name="workers", is_ok=True, message=told)


def _retention(app: Interlock, tx: Tx) -> Check:
    days = app.config.retention_days
    if days is None:
        message = "runs are kept for ever; `retention_days` in interlock.toml sets how long"
        return Check(name="retention", is_ok=True, message=message)
    old = retention.count_expired(tx, before_us=tx.now_us - days * DAY_US)
    leader = leases.leader_of(tx, ROLE)
    message = f"runs are kept {days} days after their end, {old} are to be deleted"
    if leader is None and old:
        message += "; nobody does it: run `interlock serve` or `interlock scheduler`"
        return Check(name="retention", is_ok=False, message=message)
    by = "" if leader is None else f"; `{leader}` deletes"
    return Check(name="retention", is_ok=True, message=f"{message}{by}")


def _dead_letters(tx: Tx) -> Check:
    """Find runs that were set aside since they kept losing their workers: people decide on them."""
    count = runs.count_by_state(tx).get(RunState.DEAD_LETTERED, 0)
    if not count:
        return Check(name="dead letters", is_ok=True, message="no run is set aside")
    newest = runs.list_runs(tx, states=(RunState.DEAD_LETTERED,), limit=_NAMED)
    named = ", ".join(_described(tx, run) for run in newest)
    more = f" and {count - len(newest)} more" if count > len(newest) else ""
    message = (
        f"{count} set aside since they kept losing their workers: {named}{more};"
        " `interlock run resume RUN` tries again, `interlock run cancel RUN` ends it"
        " and parks its calls of unknown outcome"
    )
    return Check(name="dead letters", is_ok=False, message=message)


def _described(tx: Tx, run: Run) -> str:
    unknown = [e for e in effects.list_for_run(tx, run.run_id) if e.state in reconcile.UNKNOWN]
    calls = f" ({len(unknown)} calls of unknown outcome)" if unknown else ""
    return f"`{run.run_id}`{calls}"


def _versions(tx: Tx) -> Check:
    """Find runs that no worker can run, and say what is missing."""
    found = runs.list_missing_version(tx)
    if not found:
        return Check(name="versions", is_ok=True, message="workers can run what there is to run")
    missing = sorted({(run.reason or "").partition("/")[2] for run in found})
    message = (
        f"{len(found)} runs wait for a worker that has: {'; '.join(missing)};"
        " start one where that is installed"
    )
    return Check(name="versions", is_ok=False, message=message)


def _servers(tx: Tx) -> Check:
    """Find servers that are not called, since they fail or a person said so."""
    found = breakers.list_all(tx)
    if not found:
        return Check(name="servers", is_ok=True, message="no breaker is open")
    waiting = breakers.count_waiting(tx)
    named = "; ".join(
        f"`{one.server}` ({one.reason}; {waiting.get(topic_of(one.server), 0)} calls wait)"
        for one in found
    )
    message = f"{named}; each is probed by itself, or `interlock tool breaker close SERVER`"
    return Check(name="servers", is_ok=False, message=f"not called: {message}")


def _switches(tx: Tx) -> Check:
    """Find what people have stopped."""
    found = switches.list_in_force(tx)
    if not found:
        return Check(name="kill switches", is_ok=True, message="none is set")
    named = "; ".join(f"{each.scope} (by {each.set_by}: {each.reason})" for each in found)
    message = f"stopped: {named}; `interlock kill status` has them, `interlock kill lift` ends one"
    return Check(name="kill switches", is_ok=False, message=message)


def _budgets(tx: Tx, release: Release) -> Check:
    """Find budgets over their soft limit; those of single runs only if a bill closed them."""
    found = [
        standing
        for _, budget in sorted(release.budgets.items())
        for account in budgets.accounts(tx, budget, limit=_NAMED)
        for standing in (budgets.standing(tx, budget, account),)
        if standing.is_closed or (standing.is_soft_reached and budget.scope != "run")
    ]
    if not found:
        told = f"{len(release.budgets)}, none over its soft limit" if release.budgets else "none"
        return Check(name="budgets", is_ok=True, message=told)
    named = "; ".join(
        f"`{each.budget.name}` "
        + (
            "is closed, since more was billed than reserved: raise its limit"
            if each.is_closed
            else f"has {each.left} of {each.budget.limit} {each.budget.unit} left"
        )
        for each in found
    )
    return Check(name="budgets", is_ok=False, message=f"{named}; see `interlock budget show NAME`")


def _tools(release: Release) -> Check:
    """Find tools that are not called, since their server changed what it says of them."""
    if not release.quarantine:
        return Check(name="tools", is_ok=True, message="none is quarantined")
    named = "; ".join(f"`{key}` ({why})" for key, why in sorted(release.quarantine.items()))
    message = f"{named}; `interlock tool check SERVER` shows the difference"
    return Check(name="tools", is_ok=False, message=f"quarantined: {message}")


def sandbox(release: Release) -> Check:
    """Find untrusted code that this machine cannot run, by building the walls once."""
    names = [name for name, one in sorted(release.servers.items()) if one.kind == "python-sandbox"]
    if not names:
        return Check(name="sandbox", is_ok=True, message="no server has untrusted code")
    told = ", ".join(f"`{name}`" for name in names)
    problem = missing()
    if problem is None:
        return Check(name="sandbox", is_ok=True, message=f"this machine can run {told}")
    return Check(name="sandbox", is_ok=False, message=f"{problem}; {told} cannot be called here")
