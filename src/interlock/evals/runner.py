"""Runs the cases of a suite, each repeat on an installation and a world of its own.

What an installation is made of is the caller's: the runner gets a function that makes one.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, Self

from interlock.calls import approve
from interlock.calls.durable import Dispatch
from interlock.domain.approval import Approval, team_of
from interlock.domain.errors import InterlockError
from interlock.domain.ids import WorkflowName
from interlock.domain.principal import DEFAULT_TENANT, Principal, PrincipalKind, Role
from interlock.domain.release import Release
from interlock.domain.run import RunState
from interlock.evals import world as worlds
from interlock.evals.observation import Observation, observe
from interlock.evals.score import Finding, Station, Verdict, fingerprint, judge, verdict_of
from interlock.evals.suite import Case, Person, Suite
from interlock.evals.world import World
from interlock.runtime.triggers import Intake, accept_webhook, signature_of, start_manual
from interlock.store import approvals, effects, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx

MODEL = "model"
SENDER = "eval"
"""The name under which runs are started and approvals answered, first part."""
POLL_S = 0.05
_ENDED = frozenset(
    {*(state for state in RunState if state.is_final), RunState.DEAD_LETTERED, RunState.PAUSED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What an installation for one repeat is made for.

    `servers` are the addresses of the world by manifest name, `secrets` their values by reference;
    `model_url` answers in place of every model.
    """

    data_dir: Path
    model_url: str
    servers: Mapping[str, str]
    secrets: Mapping[str, str]


class Installation(Protocol):
    """An installation with the project applied, as far as the runner uses it."""

    @property
    def db(self) -> Database:
        """Its database."""
        ...

    @property
    def intake(self) -> Intake:
        """Its ways in."""
        ...

    @property
    def dispatch(self) -> Dispatch:
        """What the outside may do to its runs."""
        ...

    def release(self, tx: Tx) -> Release:
        """Return the live release."""
        ...

    def start(self) -> None:
        """Begin to work."""
        ...

    def close(self) -> None:
        """Stop and let go of everything."""
        ...


Install = Callable[[Site], Installation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """How one repeat of a case ended; nothing was observed if it could not be run."""

    findings: tuple[Finding, ...]
    seen: Observation | None

    @property
    def verdict(self) -> Verdict:
        """The verdict that the first finding names."""
        return verdict_of(self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """All repeats of a case, and what is wrong with them together."""

    case: Case
    repeats: tuple[Repeat, ...]
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, case: Case, repeats: tuple[Repeat, ...]) -> Self:
        """Return the result of some repeats, which have to be equal."""
        seen = {fingerprint(repeat.seen) for repeat in repeats if repeat.seen is not None}
        if len(seen) <= 1:
            return cls(case=case, repeats=repeats)
        message = f"{len(repeats)} repeats made {len(seen)} different sets of calls"
        diverged = Finding(station=Station.VALIDITY, code="diverged", message=message)
        return cls(case=case, repeats=repeats, findings=(diverged,))

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of its repeats; repeats that pass but differ have `diverged`."""
        found = {repeat.verdict for repeat in self.repeats} | {verdict_of(self.findings)}
        order = (Verdict.UNSAFE, Verdict.FAIL, Verdict.ERROR, Verdict.DIVERGED)
        return next((verdict for verdict in order if verdict in found), Verdict.PASS)


def run_case(
    suite: Suite, case: Case, install: Install, *, folder: Path, scratch: Path, repeats: int
) -> CaseResult:
    """Run a case some times and judge it; `scratch` is where `prepare_worlds` has been."""
    done = (_repeat(suite, case, install, folder, scratch) for _ in range(repeats))
    return CaseResult.of(case, tuple(done))


def prepare_worlds(suite: Suite, *, folder: Path, scratch: Path) -> None:
    """Fill the homes of the suite's programs under `scratch`, of which each repeat gets a copy."""
    programs = {**suite.world, MODEL: suite.model}
    worlds.prepare(programs, folder=scratch / "prepared", paths=_paths(suite, folder))


def _repeat(suite: Suite, case: Case, install: Install, folder: Path, scratch: Path) -> Repeat:
    paths = _paths(suite, folder)
    if case.script is not None:
        paths["script"] = folder / case.script
    programs = {**suite.world, MODEL: suite.model}
    with tempfile.TemporaryDirectory(prefix="repeat-", dir=scratch) as name:
        place = Path(name)
        world = World(programs, folder=place / "world", prepared=scratch / "prepared", paths=paths)
        try:
            with world:
                seen = _observed(suite, case, install, folder, world, place)
        except InterlockError as error:
            message = f"the case could not be run: {error.message}"
            finding = Finding(station=Station.VALIDITY, code=error.code, message=message)
            return Repeat(findings=(finding,), seen=None)
    return Repeat(findings=judge(suite, case, seen), seen=seen)


def _observed(  # noqa: PLR0917
    suite: Suite, case: Case, install: Install, folder: Path, world: World, place: Path
) -> Observation:
    site = Site(
        data_dir=place / "data",
        model_url=world.urls[MODEL],
        servers={
            program.server: world.urls[name]
            for name, program in suite.world.items()
            if program.server is not None
        },
        secrets=world.secrets(),
    )
    with _working(install(site)) as installation:
        started_s = time.monotonic()
        _deliver(installation, WorkflowName(suite.workflow), case, folder)
        unanswered = _attend(installation, case, until_s=started_s + suite.limits.wall_s)
        wall_s = time.monotonic() - started_s
        exported = world.export()
        with installation.db.reading() as tx:
            return observe(
                tx,
                installation.release(tx),
                world=exported,
                wall_s=wall_s,
                unanswered=unanswered,
            )


@contextmanager
def _working(installation: Installation) -> Iterator[Installation]:
    try:
        installation.start()
        yield installation
    finally:
        installation.close()


def _deliver(installation: Installation, workflow: WorkflowName, case: Case, folder: Path) -> None:
    trigger = case.trigger
    if trigger.webhook is None or trigger.body is None:
        start_manual(
            installation.intake,
            workflow,
            environment=trigger.environment,
            value=trigger.input,
            by=SENDER,
            tenant=DEFAULT_TENANT,
        )
        return
    # A secret of this repeat's own: the signature is checked, and nobody has to store one.
    secret = secrets.token_hex()
    intake = replace(installation.intake, accepted=lambda _: (secret,))
    body, message_id = (folder / trigger.body).read_bytes(), f"{SENDER}-{case.id}"
    with installation.db.reading() as tx:
        timestamp = str(tx.now_us // 1_000_000)
    signature = signature_of(secret, message_id=message_id, timestamp=timestamp, body=body)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature,
    }
    for _ in range(trigger.deliver):
        accept_webhook(intake, trigger.webhook, headers=headers, body=body)


def _attend(installation: Installation, case: Case, *, until_s: float) -> tuple[str, ...]:
    """Answer approvals as the case says until no run works any more, or the time is up.

    Returns at once, with the groups, if people are asked for whom the case does not answer.
    """
    while True:
        with installation.db.reading() as tx:
            is_over = set(runs.count_by_state(tx)) <= _ENDED
            asked = [
                (approval, _answer_of(case, approval, effects.get(tx, approval.effect_id).tool))
                for approval in approvals.list_open(tx, tenant=DEFAULT_TENANT)
            ]
        unanswered = tuple(sorted({approval.group for approval, how in asked if how is None}))
        if is_over or unanswered or time.monotonic() > until_s:
            return unanswered
        for approval, how in asked:
            if how is not None:
                _answer(installation, approval, how)
        time.sleep(POLL_S)


def _answer_of(case: Case, approval: Approval, tool: str) -> Person | None:
    team = team_of(approval.group)
    fitting = (p for p in case.people if p.group == team and fnmatchcase(tool, p.tool))
    return next(fitting, None)


def _answer(installation: Installation, approval: Approval, how: Person) -> None:
    approve.answer(
        installation.db,
        installation.dispatch,
        approval.approval_id,
        by=Principal(
            # Each of several people of one team has a name of their own.
            name=f"{SENDER}-{approval.group}",
            kind=PrincipalKind.USER,
            roles=frozenset({Role.APPROVER}),
            groups=frozenset({how.group}),
        ),
        answer=how.answer,
        digest=approval.digest,
        reason=how.reason,
    )


def _paths(suite: Suite, folder: Path) -> dict[str, Path]:
    return {"suite": folder, "project": folder / suite.project}
