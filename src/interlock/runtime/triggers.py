"""Ways in: webhooks, messages and starts by hand, deduplicated and stored before they are answered.

Which workflow version and environment an event goes to is data: the triggers of the live release.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from interlock.calls.durable import Dispatch
from interlock.calls.road import LiveProject
from interlock.domain.canonical import Json, canonical, digest, digest_bytes, parse
from interlock.domain.errors import (
    DedupeConflictError,
    InputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from interlock.domain.ids import RunId, TenantId, WorkflowName
from interlock.domain.pointer import fill
from interlock.domain.release import Release
from interlock.domain.run import StartRequest, TriggerRef
from interlock.domain.tool import Environment
from interlock.domain.workflow import Condition, Queue, Trigger, WorkflowSpec
from interlock.runtime import limits
from interlock.store import triggers
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.tools.contract import Contract

WEBHOOK_BYTES = 1024 * 1024
TOLERANCE_US = 5 * 60 * 1_000_000
_MAX_ID = 256
_SECRET_PREFIX = "whsec_"  # noqa: S105  # the standard's mark of an encoded secret
_SECRET_LEAST = 24
"""Bytes; the least that the standard allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What every way in needs.

    `resolve` turns a `secret://` reference into its value, `accepted` into all that count now.
    """

    db: Database
    dispatch: Dispatch
    live: LiveProject
    resolve: Callable[[str], str]
    accepted: Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of an event: the run it started or had started; None if no trigger matched."""

    run_id: RunId | None
    is_new: bool = False
    workflow: WorkflowName | None = None
    trigger: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where an event goes: one trigger of one workflow."""

    spec: WorkflowSpec
    trigger: Trigger


def accept_webhook(
    intake: Intake, source: str, *, headers: Mapping[str, str], body: bytes
) -> Accepted:
    """Verify one delivery of the door `source` and start its run; the run is stored on return.

    Follows Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`. The
    same id and body again returns the first run.

    Raises:
        UnavailableError: nothing is applied yet.
        NotFoundError: no live trigger listens to this source.
        UnauthenticatedError: no signature holds, or the timestamp is more than 5 minutes off.
        InputError: the body is not strict JSON, or breaks the workflow's input contract.
        DedupeConflictError: this id came before with another body.
        IntakeFullError: too many runs of the workflow have yet to begin.
    """
    with intake.db.reading() as tx:
        release, now_us = intake.live.at(tx).release, tx.now_us
    if not release.number:
        # A source that repeats until it is heard must not be told that nobody will ever listen.
        raise UnavailableError("no project is applied yet; send it again later")
    listening = list(_webhooks(release, source))
    if not listening:
        raise NotFoundError(f"no workflow listens to the webhook `{source}`")
    named = {name.lower(): value for name, value in headers.items()}
    message_id = _header(named, "webhook-id")
    _check_time(_header(named, "webhook-timestamp"), now_us)
    trusted = _signed(intake, listening, headers=named, body=body)
    event = parse(body, max_bytes=WEBHOOK_BYTES)
    body_digest = digest_bytes(body)
    ref = TriggerRef(kind="webhook", source=source, key=message_id)
    return _accept(
        intake, release, route(trusted, event), ref=ref, event=event, body_digest=body_digest
    )


def accept_message(
    intake: Intake, queue: Queue, *, message_id: str | None, body: bytes
) -> Accepted:
    """Start the run of one message of a queue; the run is stored on return.

    Its key is the declared member, else `message_id`, the broker's. The same key and body again
    returns the first run.

    Raises:
        UnavailableError: no live trigger takes from this queue now.
        InputError: the body is not strict JSON, has no key, or breaks the input contract.
        DedupeConflictError: this key came before with another body.
        IntakeFullError: too many runs of the workflow have yet to begin.
    """
    with intake.db.reading() as tx:
        release = intake.live.at(tx).release
    routes = [
        Route(spec=spec, trigger=trigger)
        for _, spec in sorted(release.workflows.items())
        for trigger in spec.triggers
        if trigger.queue == queue
    ]
    if not routes:
        raise UnavailableError(f"no workflow takes from `{queue.source}` now")
    event = parse(body, max_bytes=WEBHOOK_BYTES)
    ref = TriggerRef(kind="queue", source=queue.source, key=_message_key(queue, event, message_id))
    return _accept(
        intake,
        release,
        route(routes, event),
        ref=ref,
        event=event,
        body_digest=digest_bytes(body),
    )


def queues_of(release: Release) -> frozenset[Queue]:
    """Return the queues that the live workflows take messages from."""
    triggers_of = (spec.triggers for spec in release.workflows.values())
    return frozenset(t.queue for found in triggers_of for t in found if t.queue is not None)


def start_manual(
    intake: Intake,
    workflow: WorkflowName,
    *,
    environment: Environment,
    value: Json,
    by: str,
    tenant: TenantId,
    key: str | None = None,
) -> Accepted:
    """Start a run by hand for the person `by`; the same `key` of that person returns the first run.

    Raises:
        NotFoundError: no such workflow for this tenant.
        InputError: it has no manual trigger there, or the input breaks its contract.
        DedupeConflictError: this key came before with other input.
        IntakeFullError: too many runs of the workflow have yet to begin.
    """

    def accept(tx: Tx) -> Accepted:
        release = intake.live.at(tx).release
        spec = release.workflows.get(workflow)
        if spec is None or spec.tenant != tenant:
            raise NotFoundError(f"there is no workflow `{workflow}`")
        doors = (t for t in spec.triggers if t.kind == "manual" and t.environment == environment)
        trigger = next(doors, None)
        if trigger is None:
            raise InputError(
                f"the workflow `{workflow}` has no manual trigger in `{environment}`; declare one"
            )
        request = request_of(
            release,
            spec,
            environment=environment,
            trigger=TriggerRef(
                kind="manual", source=f"{workflow}/{trigger.name}/{by}", key=key or tx.new_id()
            ),
            value=value,
            now_us=tx.now_us,
            user=by,
            priority=trigger.priority,
        )
        run_id, is_new = limits.accept(
            tx, intake.dispatch, spec, request, body_digest=digest([environment, value])
        )
        return Accepted(run_id=run_id, is_new=is_new, workflow=workflow, trigger=trigger.name)

    return intake.db.run("trigger.accept", accept)


def route(routes: list[Route], event: Json) -> Route | None:
    """Return the first route, in the order of workflow and trigger, whose conditions all hold."""
    documents = {"body": event}
    return next((r for r in routes if holds(r.trigger.when, documents)), None)


def holds(conditions: tuple[Condition, ...], documents: Mapping[str, Json]) -> bool:
    """Return whether every condition holds; one whose pointer finds nothing does not."""
    return all(_holds(condition, documents) for condition in conditions)


def input_of(trigger: Trigger, documents: Mapping[str, Json]) -> Json:
    """Return the run's input: the trigger's template filled, or the only document as it is."""
    if trigger.input is None:
        return next(iter(documents.values()))
    return fill(trigger.input, documents, optional=True)


def request_of(
    release: Release,
    spec: WorkflowSpec,
    *,
    environment: Environment,
    trigger: TriggerRef,
    value: Json,
    now_us: int,
    user: str | None = None,
    priority: int | None = None,
) -> StartRequest:
    """Return the request of a new root run; raises `ContractError` if the input does not fit."""
    Contract.of(spec.input_schema).check(value, what=f"input of `{spec.name}`")
    return StartRequest(
        workflow=spec.name,
        workflow_version=spec.version,
        release=release.number,
        environment=environment,
        tenant=spec.tenant,
        department=spec.department,
        trigger=trigger,
        input=value,
        user=user,
        deadline_us=now_us + int(spec.deadline_s * 1_000_000),
        priority=spec.priority if priority is None else priority,
    )


def signature_of(secret: str, *, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery as senders put it into `webhook-signature`.

    >>> secret = "twenty-four bytes or more"
    >>> signature_of(secret, message_id="msg_1", timestamp="1700000000", body=b"{}")
    'v1,NOhDBjDBc9naLfE8P1OqQvltqLkGXrqS+vR1bso2hKs='
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    mac = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode()


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for; raises `InputError` if it is none."""
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            msg = "the webhook's secret starts with `whsec_` but is not base64"
            raise InputError(msg) from None
    if len(key) < _SECRET_LEAST:
        msg = f"the webhook's secret is shorter than {_SECRET_LEAST} bytes; make a new one"
        raise InputError(msg)
    return key


def _accept(
    intake: Intake,
    release: Release,
    found: Route | None,
    *,
    ref: TriggerRef,
    event: Json,
    body_digest: str,
) -> Accepted:
    def accept(tx: Tx) -> Accepted:
        # A repeated delivery gets its first run, even if a newer release would route it elsewhere.
        earlier = triggers.find_event(tx, ref.source, ref.key)
        if earlier is not None and earlier.body_digest != body_digest:
            raise DedupeConflictError(
                f"the delivery `{ref.key}` of `{ref.source}` came before with another body"
            )
        if earlier is not None:
            return Accepted(run_id=earlier.run_id)
        if found is None:
            return Accepted(run_id=None)
        request = request_of(
            release,
            found.spec,
            environment=found.trigger.environment,
            trigger=ref,
            value=input_of(found.trigger, {"body": event}),
            now_us=tx.now_us,
            priority=found.trigger.priority,
        )
        run_id, is_new = limits.accept(
            tx, intake.dispatch, found.spec, request, body_digest=body_digest
        )
        return Accepted(
            run_id=run_id, is_new=is_new, workflow=found.spec.name, trigger=found.trigger.name
        )

    return intake.db.run("trigger.accept", accept)


def _message_key(queue: Queue, event: Json, message_id: str | None) -> str:
    if queue.dedupe is None:
        if not message_id:
            raise InputError("the message has no id; let its sender set one, or declare `dedupe`")
        return message_id
    key = fill(queue.dedupe, {"body": event})
    if isinstance(key, bool) or not isinstance(key, str | int) or not 0 < len(str(key)) <= _MAX_ID:
        raise InputError(f"`{queue.dedupe}` is no key: a short text or a whole number is one")
    return str(key)


def _webhooks(release: Release, source: str) -> Iterator[Route]:
    for _, spec in sorted(release.workflows.items()):
        for trigger in spec.triggers:
            if trigger.kind == "webhook" and trigger.source == source:
                yield Route(spec=spec, trigger=trigger)


def _signed(
    intake: Intake, routes: list[Route], *, headers: Mapping[str, str], body: bytes
) -> list[Route]:
    """Return the routes whose secret made one of the signatures."""
    given = [part.encode() for part in _header(headers, "webhook-signature").split()]
    trusted: list[Route] = []
    for found in routes:
        if found.trigger.secret is None:
            continue
        expected = [
            signature_of(
                secret,
                message_id=headers["webhook-id"],
                timestamp=headers["webhook-timestamp"],
                body=body,
            ).encode()
            for secret in intake.accepted(found.trigger.secret)
        ]
        # Each is compared, so that the time taken says nothing about which one was close.
        if sum(hmac.compare_digest(*pair) for pair in product(expected, given)):
            trusted.append(found)
    if not trusted:
        raise UnauthenticatedError("no signature of this delivery holds")
    return trusted


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not value or (name == "webhook-id" and len(value) > _MAX_ID):
        raise UnauthenticatedError(f"the header `{name}` is missing or too long")
    return value


def _check_time(timestamp: str, now_us: int) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):  # noqa: PLR2004
        raise UnauthenticatedError("the header `webhook-timestamp` is not a number of seconds")
    if abs(int(timestamp) * 1_000_000 - now_us) > TOLERANCE_US:
        raise UnauthenticatedError(
            "the header `webhook-timestamp` is more than 5 minutes off; send it again"
        )


def _holds(condition: Condition, documents: Mapping[str, Json]) -> bool:
    try:
        value = canonical(fill(condition.at, documents))
    except InputError:
        return False
    wanted = condition.is_in or (condition.equals,)
    return any(value == canonical(one) for one in wanted)
