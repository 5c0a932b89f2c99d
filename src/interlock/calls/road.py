"""What the stations of the road share: their surroundings, and the call as it moves along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import structlog

from interlock.calls.protocol import EffectView
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.effect import Effect, Reply
from interlock.domain.errors import JsonError, PolicyError
from interlock.domain.ids import ApprovalId, EffectId, StepName, ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, object_to_json
from interlock.domain.release import Release
from interlock.domain.switch import Target
from interlock.domain.tool import (
    ENVIRONMENTS,
    Binding,
    EffectSpec,
    Environment,
    Server,
    ToolVersion,
)
from interlock.policy.engine import ModelResource, World, build_world
from interlock.store import registry
from interlock.store.breakers import Breakers
from interlock.store.engine import Database
from interlock.store.tx import Tx

NOT_SENT = "call.not_sent"
KEY_REUSED = "call.key_reused"
"""Error codes of a row from which the protocol reads how its last attempt ended."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The applied project as one transaction sees it; a world that does not build denies all."""

    release: Release
    worlds: Mapping[Environment, World]
    _servers: dict[str, str] = field(default_factory=dict)

    def digest_of(self, server: Server) -> str:
        """Return the digest of a server of this release."""
        if server.name not in self._servers:
            self._servers[server.name] = digest(object_to_json(server))
        return self._servers[server.name]


class LiveProject:
    """Gives each transaction the live release and its policy worlds, built once per release."""

    def __init__(self, models: Mapping[str, ModelResource]) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._built: Live | None = None

    def known(self, number: int) -> Release | None:
        """Return a release without asking the database, None if it is not the last one seen."""
        built = self._built
        return built.release if built is not None and built.release.number == number else None

    @property
    def last(self) -> Release:
        """Return the release that was seen live last; the empty one before the first look."""
        return Release() if self._built is None else self._built.release

    def at(self, tx: Tx) -> Live:
        """Return what is live in this transaction."""
        number = registry.live_number(tx)
        built = self._built
        if built is not None and built.release.number == number:
            return built
        release = registry.get_release(tx, number) if number else Release()
        with self._lock:
            # Before the first release there is nothing to decide about: every call is denied.
            worlds = self.worlds_of(release) if number else {}
            self._built = Live(release=release, worlds=worlds)
            return self._built

    def worlds_of(self, release: Release) -> dict[Environment, World]:
        """Build what the policies of a release come to; no world where they cannot be read."""
        worlds: dict[Environment, World] = {}
        for environment in ENVIRONMENTS:
            try:
                worlds[environment] = build_world(release, environment, models=self._models)
            except PolicyError as error:
                # Fail closed: an environment without a world denies every call.
                _log.error("policy.unavailable", environment=environment, reason=error.message)
        return worlds


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model request cost, in micro-USD, and the price list that says so."""

    micro_usd: int
    version: str


class CallState(StrEnum):
    """How a call ended, as its proposer sees it."""

    SUCCEEDED = "succeeded"
    DENIED = "denied"
    DRAFTED = "drafted"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The recorded end of a call: `output` fits the contract if it succeeded, else code and why."""

    state: CallState
    effect_id: EffectId
    output: Json = None
    code: str | None = None
    message: str | None = None

    def to_json(self) -> JsonObject:
        """Render for the journal."""
        return object_to_json(self)

    @classmethod
    def from_journal(cls, value: Json) -> CallResult:
        """Read back what `to_json` wrote."""
        return from_json(cls, value)


_WORDS: Mapping[CallState, str] = {
    CallState.DENIED: "refused",
    CallState.REJECTED: "refused by a person",
    CallState.DRAFTED: "recorded as a draft, nothing was sent",
    CallState.FAILED: "failed",
}


def answer_of(result: CallResult) -> Json:
    """Return what an agent reads of a call: its output, or a sentence that says why none."""
    if result.state is CallState.SUCCEEDED:
        return result.output
    words, code = _WORDS[result.state], result.code or result.state.value
    return f"{words} ({code}): {result.message}" if result.message else f"{words} ({code})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A wish to call a tool: by whom (`seats` all have to be allowed), in which step, with what.

    `step_name` is unique in its run and is also the key of the call's span; `compensates` names
    the effect that this call undoes, `settles` the one of which it asks whether it was done.
    `planner` worded the call without a say in whether it may be made; `heard` are approvals of it
    that were answered before it was proposed. `is_withdrawn` if whoever made the wish has taken it
    back.
    """

    step_name: StepName
    tool: ToolName
    arguments: Json
    seats: tuple[Seat, ...]
    parent_span: str
    version: int | None = None
    compensates: EffectId | None = None
    settles: EffectId | None = None
    planner: Seat | None = None
    heard: frozenset[ApprovalId] = frozenset()
    is_withdrawn: bool = False

    @property
    def input_digest(self) -> str | None:
        """Return what tells this wish from another one under the same name; None if it is bad."""
        try:
            return digest({"tool": self.tool, "arguments": self.arguments})
        except JsonError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a proposal is refused before policy is asked."""

    code: str
    message: str


WITHDRAWN = Refusal(code="call.withdrawn", message="its agent took the call back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A proposal on its way: its effect row (`is_stored` or not yet), tool, binding and facts.

    `refusal` is set if the proposal broke its contract, names nothing that can be called, or was
    taken back.
    `sent_at_s` is the monotonic time from which the send deadline counts, `heard` the approvals
    whose answer this stretch of the run knows. `not_before_us` is when a call may ask again that
    came too soon for a rate, whose server fails, or that a kill switch holds; `waits_for` is then
    the topic, None for a rate. `target` is what kill switches see of a call that is to be sent.
    """

    proposal: Proposal
    effect: Effect
    tool: ToolVersion | None = None
    binding: Binding | None = None
    refusal: Refusal | None = None
    is_stored: bool = False
    sent_at_s: float = 0.0
    retry_after_s: float = 0.0
    heard: frozenset[ApprovalId] = frozenset()
    not_before_us: int | None = None
    waits_for: str | None = None
    target: Target | None = None

    def at(self, effect: Effect) -> Call:
        """Return the call with its row as it is stored now."""
        return replace(self, effect=effect, is_stored=True)

    @property
    def known_tool(self) -> ToolVersion:
        """Return the tool version, which every call that was not refused has."""
        # INVARIANT: a call without a tool carries a refusal and never gets past `validate`.
        assert self.tool is not None
        return self.tool

    @property
    def known_binding(self) -> Binding:
        """Return the binding, which every call that was not refused has."""
        # INVARIANT: as for `known_tool`.
        assert self.binding is not None
        return self.binding


class Sender(Protocol):
    """Runs the connector of a call; knows nothing of what its answer means."""

    async def prepare(self, call: Call) -> JsonObject | None:
        """Fetch what the call's guard needs; raises `InterlockError` if it cannot be had."""
        ...

    async def send(self, call: Call) -> Reply:
        """Send the attempt before its deadline and report only what was seen; never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """The surroundings of every call.

    `sender` is `execute.ConnectorSender`, the only thing that runs connectors; `price` is None for
    a model without a known or declared price. `key_secret` keys the hashes of business keys.
    `breakers` is what this worker knows of servers that fail.
    """

    db: Database
    live: LiveProject
    sender: Sender
    price: Callable[[str, int, int], Price | None]
    key_secret: bytes
    approval_ttl_us: int
    breakers: Breakers = field(default_factory=Breakers)


def labels_of(tool: ToolVersion) -> Labels:
    """Return what a result of this tool does to the run's labels."""
    return Labels(names=tool.source.labels, is_untrusted=not tool.source.is_trusted)


def view_of(effect: Effect, tool: ToolVersion | None) -> EffectView:
    """Return what the effect protocol needs to know of a row and its tool.

    Without the tool, which a later release may have dropped, there is no key, guard or probe.
    """
    spec, guard = EffectSpec() if tool is None else tool.effect, effect.guard or {}
    obtained_us = guard.get("obtained_us")
    is_link = spec.guard is not None and spec.guard.kind == "one_time_link"
    return EffectView(
        effect_class=effect.effect_class,
        state=effect.state,
        epoch=effect.epoch,
        attempt=effect.attempt,
        first_sent_us=effect.first_sent_us,
        send_deadline_us=effect.send_deadline_us,
        key_ttl_us=None if spec.key_ttl_s is None else spec.key_ttl_s * 1_000_000,
        guard_until_us=obtained_us + spec.guard.ttl_s * 1_000_000
        if is_link and spec.guard is not None and isinstance(obtained_us, int)
        else None,
        lag_us=0 if spec.probe is None else round(spec.probe.lag_s * 1_000_000),
        has_probe=spec.probe is not None,
        is_in_doubt=effect.is_in_doubt,
        is_unsent=effect.error_code == NOT_SENT,
        is_guard_refused=guard.get("is_refused") is True,
        is_key_reused=effect.error_code == KEY_REUSED,
    )
