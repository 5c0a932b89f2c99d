"""Composition root: builds an `Interlock` from a `Config`; the only place where rooms are wired."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Self

from interlock.agents.models import ModelCatalog
from interlock.agents.upstream import Upstream
from interlock.calls import compensate
from interlock.calls.durable import Dispatch
from interlock.calls.execute import ConnectorSender
from interlock.calls.road import CallResult, Live, LiveProject, Price, Road
from interlock.config import PREFIX, Config, ModelSettings
from interlock.domain.autonomy import EARNED_IN
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.clock import Clock
from interlock.domain.effect import Effect
from interlock.domain.errors import ConflictError, ForbiddenError, UnavailableError
from interlock.domain.ids import ApprovalId, ExecutorId, RunId, TenantId, WorkflowName
from interlock.domain.ladder import is_there, versions_of
from interlock.domain.principal import Principal
from interlock.domain.record import object_to_json
from interlock.domain.release import RELEASE_FORMAT, Release
from interlock.domain.run import UNDO, Abilities, Run, RunOutcome, RunState, follow_up
from interlock.domain.tool import Environment, McpKind, ToolVersion
from interlock.manifest import apply
from interlock.observe import cost
from interlock.observe.bodies import redacted_effect
from interlock.observe.progress import StepProgress, progress
from interlock.policy.changes.rights import IsAsked, Worlds
from interlock.policy.engine import ModelResource
from interlock.policy.lint import check
from interlock.runtime import control
from interlock.runtime.durable.engine import DbosEngine
from interlock.runtime.durable.segment import Segment
from interlock.runtime.durable.versions import Versions
from interlock.runtime.outside import exchange
from interlock.runtime.outside.desk import Asked, Desks, ModelAsked, Pending
from interlock.runtime.outside.exchange import Tokens
from interlock.runtime.outside.offer import granted, offered
from interlock.runtime.outside.session import find_asked
from interlock.runtime.outside.sessions import Sessions
from interlock.runtime.registry.backtest import Backtest, Progress, backtest
from interlock.runtime.registry.rights import PastChange, Rights, compared, history
from interlock.runtime.registry.trial import Trial, Trials
from interlock.runtime.retention import Retention
from interlock.runtime.schedule import ScheduleLoop
from interlock.runtime.steps import Services
from interlock.runtime.triggers import Intake, start_manual
from interlock.runtime.upstreams import Upstreams, UpstreamWatch
from interlock.runtime.versions import ReleaseNeeds
from interlock.runtime.workflows import close_trace, run_segment
from interlock.store import keys, migrate, registry, retention, spans, tokens
from interlock.store.engine import CrashPoints, Database
from interlock.store.keys import AgentPlace, ApiKey
from interlock.store.tokens import Session
from interlock.store.tx import Tx
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.functions import PythonFunction
from interlock.tools.secrets.keyring import Keyring
from interlock.tools.secrets.sealed import SealedSecrets
from interlock.tools.secrets.source import SecretSource
from interlock.tools.secrets.variables import VariableSecrets
from interlock.tools.secrets.vault import VaultPlace, VaultSecrets

INSTANCE_KEY = "instance.key"
_TWO = "Something in `prod` is wider: it is applied once two people have asked for it."


class Interlock:
    """One installation: store, policy, tools, runs; what every front door talks to.

    Open it with `open`, then `start` it where work is to be done; `close` it at the end.
    """

    def __init__(
        self,
        config: Config,
        *,
        db: Database,
        functions: Mapping[str, PythonFunction] | None = None,
    ) -> None:
        self.config = config
        self.db = db
        self.url = config.url()
        self.secrets = SealedSecrets(db, Keyring(config.key_file))
        self.credentials = _source(config, self.secrets)
        self._models = config.models
        self._pool = ConnectorPool(functions, variables=_passable(os.environ))
        self._telling = threading.Lock()
        models = models_of(config)
        self._live = LiveProject(models)
        # Such a release would load and then deny everything.
        self._lint = partial(check, models=models)
        self._catalog = ModelCatalog(config.models, resolve=self.credentials.resolve)
        self._engine = DbosEngine(
            db,
            self._code,
            on_end=close_trace,
            on_stop=self._close_clients,
            concurrency=config.concurrency,
            versions=Versions(
                Abilities(release_format=RELEASE_FORMAT, functions=frozenset(functions or ())),
                ReleaseNeeds(),
            ),
        )
        self._road = Road(
            db=db,
            live=self._live,
            sender=ConnectorSender(
                connect=self._pool.get,
                resolve=self.credentials.resolve,
                points=db.points,
                may_send=self._engine.may_send,
                is_stopped=partial(control.is_stopped, db),
            ),
            price=self.price,
            key_secret=_instance_key(config.data_dir),
            approval_ttl_us=config.approval_ttl_s * 1_000_000,
        )
        self._services = Services(road=self._road, catalog=self._catalog)
        self._desks = Desks()
        self._sessions = Sessions(self._desks, self._engine)
        self.intake = Intake(
            db=db,
            dispatch=self.dispatch,
            live=self._live,
            resolve=self.credentials.resolve,
            accepted=self.credentials.accepted,
        )
        self._schedule = ScheduleLoop(self.intake)
        self._retention = Retention(
            db,
            self._engine.executor_id,
            clear_hints=self._engine.clear_hints,
            days=config.retention_days,
        )
        upstreams = Upstreams(
            db=db, resolve=self.credentials.resolve, variables=_passable(os.environ)
        )
        self.upstreams = upstreams
        self._watch = UpstreamWatch(upstreams, self._engine.executor_id)
        self._trials = Trials(
            db=db,
            live=self._live,
            resolve=self.credentials.resolve,
            variables=_passable(os.environ),
            functions=frozenset(functions or ()),
        )
        self._is_working = self._is_scheduling = False
        self._attending = threading.Lock()

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        functions: Mapping[str, PythonFunction] | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Open the data folder and the database, with the tables as this version needs them."""
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = Database(config.store_url, clock=clock, points=CrashPoints(config.crash_file))
        migrate.upgrade(db)
        interlock = cls(config, db=db, functions=functions)
        interlock._engine.install()
        return interlock

    @property
    def dispatch(self) -> Dispatch:
        """Return what the outside may do to runs."""
        return self._engine.dispatch

    @property
    def executor_id(self) -> ExecutorId:
        """Return the name of this process among the workers."""
        return self._engine.executor_id

    def key_for(self, purpose: str) -> bytes:
        """Return 32 bytes that all servers of this installation have, and no other purpose."""
        return hmac.digest(self._road.key_secret, purpose.encode(), "sha256")

    def link_to(self, approval_id: ApprovalId) -> str | None:
        """Return the public address of an approval's page; None without a `public_url`."""
        is_public = self.config.public_url is not None
        return f"{self.config.url()}/approvals/{approval_id}" if is_public else None

    def start(self, *, work: bool = True, schedule: bool = True) -> None:
        """Begin to work (claim runs, take over from dead workers), to fire schedules and tidy.

        Who schedules also compares the tools of MCP servers with what was reviewed.
        """
        if work:
            self._engine.start()
            self._is_working = True
        if schedule:
            self._schedule.start()
            self._retention.start()
            self._watch.start()
            self._is_scheduling = True

    def close(self) -> None:
        """Hand back what is running, stop what was started, close connections."""
        if self._is_scheduling:
            self._schedule.stop()
            self._retention.stop()
            self._watch.stop()
        with self._attending:
            if self._is_working:
                self._engine.stop()
        if isinstance(self.credentials, VaultSecrets):
            self.credentials.close()
        self.db.close()

    async def _close_clients(self) -> None:
        await asyncio.gather(self._pool.aclose(), self._catalog.aclose())

    # --- the project

    def release(self, tx: Tx) -> Release:
        """Return the live release; the empty one, number 0, if nothing was applied."""
        return self._live.at(tx).release

    def live(self, tx: Tx) -> Live:
        """Return the live release with what its policies come to in each environment."""
        return self._live.at(tx)

    def plan(self, files: Mapping[str, str]) -> JsonObject:
        """Say what applying these files would change; raises `ManifestError` with every problem."""
        planned, before, after = self._candidate(files)
        rights = compared(before, after) if before else None
        return _shown(planned, rights, takes_two=_takes_two(self.db, planned, rights))

    def past_rights(self, *, since_us: int, is_asked: IsAsked) -> list[PastChange]:
        """Return the releases since a moment that changed rights that are asked about."""
        return history(self.db, self._live.worlds_of, since_us=since_us, is_asked=is_asked)

    def backtest(
        self, files: Mapping[str, str], *, tenant: TenantId, span_us: int
    ) -> Generator[JsonObject]:
        """Decide the recorded calls of a time again by the policies of these files.

        Raises `ManifestError` with every problem. Yields `progress` page by page, and at last the
        `report` with the plan's `rights`; nothing is applied. One at a time: while another lasts,
        the first step raises `ConflictError`.
        """
        _, before, after = self._candidate(files)
        told = backtest(self.db, before, after, tenant=tenant, span_us=span_us)
        return self._alone(_reported(told, lambda: compared(before, after)))

    def _alone(self, told: Iterator[JsonObject]) -> Generator[JsonObject]:
        """Yield what is told, unless another is telling: each of them is a lot of work."""
        if not self._telling.acquire(blocking=False):
            raise ConflictError("another back-test is running here; try again when it has ended")
        try:
            yield from told
        finally:
            self._telling.release()

    def _candidate(self, files: Mapping[str, str]) -> tuple[apply.Plan, Worlds, Worlds]:
        planned = apply.plan(self.db, files, lint=self._lint)
        with self.db.reading() as tx:
            before = self._live.at(tx).worlds
        return planned, before, self._live.worlds_of(planned.release)

    def apply(self, files: Mapping[str, str], *, by: Principal, diff: str | None) -> JsonObject:
        """Apply files as the next release, whole or not at all; `diff` is the digest shown.

        What widens something in `prod` is applied once a second person asks for it too.
        """
        planned, before, after = self._candidate(files)
        if diff not in {None, planned.diff.digest}:
            raise ConflictError(apply.MOVED)
        rights = compared(before, after) if before else None
        takes_two = _takes_two(self.db, planned, rights)
        done = apply.apply(
            self.db,
            files,
            by=by.name,
            expected_diff_digest=planned.diff.digest,
            takes_two=takes_two,
            lint=self._lint,
        )
        waits = None if done.waits is None else object_to_json(done.waits)
        return _shown(done, rights, takes_two=takes_two) | {
            "release": done.release.number,
            "waits": waits,
        }

    def try_tool(
        self,
        tool: ToolVersion,
        environment: Environment,
        *,
        by: Principal,
        arguments: JsonObject | None,
    ) -> Trial:
        """Look at what a call of a live tool needs in one environment; no call is made."""
        return self._trials.run(tool.name, environment, tenant=by.tenant, arguments=arguments)

    # --- sessions of outside agents

    def open_session(self, key: ApiKey) -> Tokens:
        """Open a session for the agent of a key; see `exchange.open_session`."""
        return exchange.open_session(self.intake, key)

    def check_place(self, tx: Tx, place: AgentPlace) -> None:
        """Raise `ForbiddenError` unless a live workflow lets this agent open sessions there."""
        exchange.door_of(self._live.at(tx), place)

    def refresh_session(self, key: ApiKey, refresh: str) -> Tokens:
        """Give a session another token; raises `UnauthenticatedError` if it has ended."""
        return exchange.refresh_session(self.intake, key, refresh)

    def end_session(self, key: ApiKey, token: str) -> None:
        """Let the session of a token end; see `exchange.end_session`."""
        exchange.end_session(self.intake, key, token)

    def revoke_key(self, tx: Tx, key_id: str) -> bool:
        """Revoke a key; False if it is revoked. What its sessions have open is not made any more.

        Unlike after the end of a token: whoever revokes a key may not trust what it asked for.
        """
        # The runs first, as their own code locks.
        for run_id in tokens.list_open(tx, key_id):
            self.dispatch.cancel(tx, run_id)
        return keys.revoke_key(tx, key_id)

    def offered(self, tx: Tx, run: Run, *, kind: McpKind | None = None) -> list[ToolVersion]:
        """Return the tools, of a kind, that a session may call with some arguments."""
        return offered(tx, self._road, run, kind=kind)

    def session_of(self, token: str) -> Session | None:
        """Return the session that a token leads to now; None if it does to none."""
        return exchange.session_of(self.db, token)

    def granted(self, run: Run) -> Iterator[ToolVersion]:
        """Yield the tools, as last seen live, that the run's seat has."""
        return granted(self._live.last, run)

    def find_asked(self, tx: Tx, run_id: RunId, key: str, *, key_id: str) -> Asked | None:
        """Return a call of a session by its key, if the session was opened with this API key."""
        if tokens.key_of(tx, run_id) != key_id:
            return None
        return find_asked(tx, run_id, key)

    async def call_in_session(self, run_id: RunId, asked: Asked) -> CallResult | Pending:
        """Make a call of an outside agent; see `Sessions.call`."""
        if not self._is_working:
            await asyncio.to_thread(self._attend)
        return await asyncio.wrap_future(self._engine.submit(self._sessions.call(run_id, asked)))

    def granted_models(self, tx: Tx, run: Run) -> dict[str, ModelSettings]:
        """Return the models of the settings that a session's agent may ask, by name."""
        (seat,) = run.request.seats
        agent = self._live.at(tx).release.agents.get(seat.agent)
        named = () if agent is None or not agent.is_outside else agent.models
        return {name: self._models[name] for name in named if name in self._models}

    def upstream(self, model: str) -> Upstream:
        """Return the way to a model's server, for the loop that makes model requests only."""
        return self._catalog.upstream(model)

    async def ask_in_session(self, run_id: RunId, asked: ModelAsked) -> Json:
        """Make a model request of an outside agent; see `Sessions.ask`."""
        if not self._is_working:
            await asyncio.to_thread(self._attend)
        return await asyncio.wrap_future(self._engine.submit(self._sessions.ask(run_id, asked)))

    def _attend(self) -> None:
        """Own the runs of sessions here although this process takes no other work."""
        with self._attending:
            if self._is_working:
                return
            if self.db.dialect == "sqlite":
                raise UnavailableError("calls need the worker of `interlock serve` here")
            self._engine.start_attending()
            self._is_working = True

    # --- runs

    def start_run(
        self,
        workflow: WorkflowName,
        *,
        environment: Environment,
        value: Json,
        by: Principal,
        key: str | None,
    ) -> tuple[RunId, bool]:
        """Start a run by hand; also return whether it is new."""
        accepted = start_manual(
            self.intake,
            workflow,
            environment=environment,
            value=value,
            by=by.name,
            tenant=by.tenant,
            key=key,
        )
        # INVARIANT: a start by hand that is accepted has a run.
        assert accepted.run_id is not None
        return accepted.run_id, accepted.is_new

    def wait_for(self, run_id: RunId, *states: RunState, timeout_s: float = 30.0) -> Run:
        """Return the run once it is in one of `states`; raises `UnavailableError` if that lasts."""
        return self._engine.wait_for(run_id, *states, timeout_s=timeout_s)

    def cancel_run(self, run_id: RunId) -> bool:
        """Ask a run and its children to stop; False if it has ended."""
        return self.db.run("run.cancel", lambda tx: self.dispatch.cancel(tx, run_id))

    def pause_run(self, run_id: RunId) -> bool:
        """Let a run and those below it stand still at their next operation; False if none did."""
        return control.pause(self.db, self.dispatch, run_id)

    def resume_run(self, run_id: RunId) -> bool:
        """Let a paused or dead-lettered run and those below it go on; False if none was."""
        return control.resume(self.db, self.dispatch, run_id)

    def signal_run(
        self, run: Run, topic: str, value: Json, *, by: Principal, key: str | None
    ) -> bool:
        """Send a signal that the run's workflow waits for; False if this key was sent before."""
        return control.signal(self.db, self.dispatch, run, topic, value, by=by.name, key=key)

    def progress(self, tx: Tx, run: Run) -> tuple[StepProgress, ...]:
        """Return the steps of a run and how each stands."""
        release = registry.get_release(tx, run.request.release)
        return progress(tx, run, release.workflows[run.request.workflow])

    def shown_effect(self, tx: Tx, effect: Effect) -> Effect:
        """Return an effect as it may be shown: what its contract classes is redacted."""
        tool = self.release(tx).tool_version(effect.tool, effect.tool_version)
        return redacted_effect(effect, tool, key=self._road.key_secret)

    def cost_of(self, tx: Tx, run: Run) -> int:
        """Return what the tree of a run has cost so far, in micro-USD."""
        return spans.cost_of_tree(tx, run.request.root_id or run.run_id)

    def preview_compensation(self, tx: Tx, run: Run) -> tuple[compensate.Undo, ...]:
        """Say which effects of a run an undo would undo."""
        return compensate.preview(tx, self.release(tx), run.run_id)

    def compensate_run(self, run: Run, *, by: Principal) -> tuple[RunId, bool]:
        """Start the undo of an ended run as a child run of its own; one per run.

        Raises `ConflictError` if the run is being deleted by age.
        """
        if not run.state.is_final:
            raise ForbiddenError(f"the run is `{run.state}`; cancel it before you undo it")
        request = follow_up(
            run, kind=UNDO, key=run.run_id, value={"run_id": run.run_id}, user=by.name
        )

        def accept(tx: Tx) -> tuple[RunId, bool]:
            if retention.is_deleting(tx, run.request.root_id or run.run_id):
                raise ConflictError("the run is being deleted: it was kept for `retention_days`")
            return self.dispatch.start(tx, request, body_digest=digest(run.run_id))

        return self.db.run("trigger.accept", accept)

    def price(self, model: str, input_tokens: int, output_tokens: int) -> Price | None:
        """Return what a request to a model of the settings costs; None if that is not known."""
        settings = self._models.get(model)
        if settings is None:
            return None
        vendor, _, name = settings.provider.partition(":")
        found = cost.price(
            vendor,
            name,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            declared=_declared(settings),
        )
        return None if found is None else Price(micro_usd=found[0], version=found[1])

    async def _code(self, durable: Segment) -> RunOutcome:
        return await run_segment(self._services, durable, desks=self._desks)


def _declared(settings: ModelSettings) -> cost.Price | None:
    given, taken = (
        settings.input_price_micro_usd_per_mtok,
        settings.output_price_micro_usd_per_mtok,
    )
    if given is None or taken is None:
        return None
    return cost.Price(input_micro_usd_per_mtok=given, output_micro_usd_per_mtok=taken)


def models_of(config: Config) -> dict[str, ModelResource]:
    """Return the models of the settings as policies see them, by name."""
    return {
        name: ModelResource(name=model.name, external=model.is_external, accepts=model.accepts)
        for name, model in config.models.items()
    }


def _shown(planned: apply.Plan, rights: Rights | None, *, takes_two: bool) -> JsonObject:
    """Render a plan; `rights` are what it changes for seats, None if nothing is live to compare."""
    found = planned.diff
    told = [found.to_text()] if rights is None else [found.to_text(), rights.to_text()]
    told += ["", _TWO] if takes_two else []
    return found.to_json() | {
        "text": "\n".join(told).rstrip("\n"),
        "is_empty": not found.changes,
        "rights": [] if rights is None else rights.to_json(),
        "is_wider": rights is None or rights.is_wider or found.is_wider,
        "takes_two": takes_two,
        "versions": _versions(planned.release),
    }


def _versions(release: Release) -> JsonObject:
    """Return what fixes how each workflow acts, in each environment where that is judged."""
    return {
        name: {
            environment: versions_of(release, name, environment)
            for environment in EARNED_IN
            if is_there(release, spec, environment)
        }
        for name, spec in release.workflows.items()
    }


def _takes_two(db: Database, planned: apply.Plan, rights: Rights | None) -> bool:
    """Return whether something of `prod` is wider than now; nothing is before a first release.

    To go back to what was live there takes one person: two have agreed to it before.
    """
    is_wider = rights is not None and (rights.is_wider_in_prod or planned.diff.is_wider_in_prod)
    if not is_wider:
        return False
    with db.reading() as tx:
        return not apply.goes_back(tx, planned.release)


def _reported(
    told: Iterator[Progress | Backtest], rights: Callable[[], Rights]
) -> Iterator[JsonObject]:
    for each in told:
        if isinstance(each, Progress):
            yield {"progress": object_to_json(each)}
        else:
            shown = rights()
            report = object_to_json(each) | {"rights": shown.to_json(), "text": shown.to_text()}
            yield {"report": report}


def _passable(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a server of tools may be given: none of ours."""
    return {name: text for name, text in environ.items() if not name.startswith(PREFIX)}


def _source(config: Config, stored: SealedSecrets) -> SecretSource:
    settings = config.secrets
    if settings.source == "environment":
        return VariableSecrets(os.environ)
    if settings.source == "vault":
        # INVARIANT: the settings were checked to name both.
        assert settings.address is not None
        assert settings.token_file is not None
        place = VaultPlace(
            address=settings.address,
            token_file=settings.token_file,
            mount=settings.mount,
            prefix=settings.prefix,
            namespace=settings.namespace,
            overlap_s=settings.overlap_s,
        )
        return VaultSecrets(place)
    return stored


def _instance_key(folder: Path) -> bytes:
    """Return the key of this installation's keyed hashes, made at first use (0600)."""
    file = folder / INSTANCE_KEY
    try:
        return file.read_bytes()
    except FileNotFoundError:
        pass
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    key = secrets.token_bytes(32)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key)
    return key
