"""From the key of an outside agent to a session: a run, and the tokens that lead to it.

A token is a name, not a claim: 256 random bits of which the hash is stored. What it leads to, and
whether that still stands, is read from the rows at every call, so that a revocation counts at once.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace

from interlock.calls.road import Live
from interlock.domain.canonical import digest
from interlock.domain.errors import ForbiddenError, IntakeFullError, UnauthenticatedError
from interlock.domain.ids import RunId
from interlock.domain.run import SESSION, StartRequest, TriggerRef
from interlock.domain.workflow import Trigger, WorkflowSpec
from interlock.runtime.outside.session import END_TOPIC
from interlock.runtime.triggers import Intake, request_of
from interlock.store import tokens, triggers
from interlock.store.engine import Database
from interlock.store.keys import AgentPlace, ApiKey
from interlock.store.tokens import Session
from interlock.store.tx import Tx

ACCESS_S = 15 * 60
TOLD_S = 10 * 60
"""How long clients are told that a token works: they refresh it when that is over, and not before,
while its session goes on as long as the token does."""
MOST_SESSIONS = 100
"""How many sessions of one key may go on at once."""
ACCESS_PREFIX = "ilt_"
REFRESH_PREFIX = "ilf_"
_RETRY_AFTER_S = 60
_REMEMBERED_US = 24 * 3600 * 1_000_000
"""For how long a key's next session begins with what its earlier ones have read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of a session, told once, and after how long to refresh the one for calls."""

    run_id: RunId
    access: str
    expires_in_s: int
    refresh: str | None = None


def open_session(intake: Intake, key: ApiKey) -> Tokens:
    """Open a session for the agent of a key; its run is stored on return.

    It begins with the labels of what sessions of this key have read within a day: another session
    must not be a way to forget them.

    Raises:
        ForbiddenError: the key is no agent's, or no live workflow has such a session.
        IntakeFullError: the key has too many sessions open.
    """
    place = _place_of(key)

    def accept(tx: Tx) -> Tokens:
        spec, trigger = door_of(intake.live.at(tx), place)
        # Or two servers would each let in the last one.
        tokens.lock_key(tx, key.key_id)
        if tokens.count_open(tx, key.key_id) >= MOST_SESSIONS:
            raise IntakeFullError(
                f"{MOST_SESSIONS} sessions of this key are open; end one first",
                retry_after_s=_RETRY_AFTER_S,
            )
        request = _request(tx, intake.live.at(tx), spec, trigger, key=key)
        # Without a hint: the first call claims the run, in the process where it arrives.
        run_id, _ = triggers.accept(tx, request, body_digest=digest(key.key_id))
        return _issue(tx, run_id, key, until_us=request.deadline_us, with_refresh=True)

    return intake.db.run("trigger.accept", accept)


def refresh_session(intake: Intake, key: ApiKey, refresh: str) -> Tokens:
    """Give a session that goes on another token for calls, to whoever holds its key as well.

    Raises `UnauthenticatedError` if it has ended, `ForbiddenError` if no live workflow has such
    sessions any more.
    """
    place = _place_of(key)

    def again(tx: Tx) -> Tokens:
        session = tokens.find(tx, hash_token(refresh), kind="refresh")
        if session is None or session.key_id != key.key_id:
            raise UnauthenticatedError("the session has ended; open another")
        door_of(intake.live.at(tx), place)
        request = session.run.request
        tokens.drop_expired(tx, session.run.run_id)
        return _issue(tx, session.run.run_id, key, until_us=request.deadline_us)

    return intake.db.run("token.refresh", again)


def end_session(intake: Intake, key: ApiKey, token: str) -> None:
    """Let no token of a session work any more, and end it once nothing of it is open.

    Does nothing if the token, of either kind, is none of this key.
    """

    def end(tx: Tx) -> None:
        found = tokens.find(tx, hash_token(token), kind=_kind_of(token))
        if found is None or found.key_id != key.key_id:
            return
        run_id = found.run.run_id
        # The run first, as its own code locks.
        intake.dispatch.signal(tx, run_id, END_TOPIC, {}, dedupe_key=END_TOPIC)
        tokens.expire(tx, run_id)

    intake.db.run("token.revoke", end)


def _kind_of(token: str) -> tokens.Kind:
    return "access" if token.startswith(ACCESS_PREFIX) else "refresh"


def session_of(db: Database, access: str) -> Session | None:
    """Return the session that a token leads to now; None if it does to none.

    It has the labels of all that sessions of its key have read within a day, as of this request:
    an agent may have carried what it read in one over to another.
    """
    if not access.startswith(ACCESS_PREFIX):
        return None
    token_hash = hash_token(access)

    def again(tx: Tx) -> Session | None:
        found = tokens.find(tx, token_hash, kind="access")
        if found is not None:
            tokens.catch_up(tx, found, token_hash, since_us=tx.now_us - _REMEMBERED_US)
        return tokens.find(tx, token_hash, kind="access")

    with db.reading() as tx:
        session = tokens.find(tx, token_hash, kind="access")
    return db.run("token.catch_up", again) if session and session.is_behind else session


def hash_token(token: str) -> str:
    """Return what is stored of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def door_of(live: Live, place: AgentPlace) -> tuple[WorkflowSpec, Trigger]:
    """Return the live workflow and trigger by which an agent opens sessions.

    Raises `ForbiddenError` if there is none.
    """
    seat = place.seat
    spec = live.release.workflows.get(seat.workflow)
    for trigger in () if spec is None else spec.triggers:
        if trigger.agent == seat.agent and trigger.environment == place.environment:
            # INVARIANT: without a workflow there is no trigger.
            assert spec is not None
            return spec, trigger
    raise ForbiddenError(
        f"no live workflow lets `{seat}` open sessions in `{place.environment}`; declare a trigger"
        " `session`"
    )


def _place_of(key: ApiKey) -> AgentPlace:
    if key.place is None:
        raise ForbiddenError("this is no key of an outside agent; make one with `key create`")
    return key.place


def _request(
    tx: Tx, live: Live, spec: WorkflowSpec, trigger: Trigger, *, key: ApiKey
) -> StartRequest:
    place = _place_of(key)
    source = f"{spec.name}/{trigger.name}/{key.key_id}"
    # People read it in the list of runs and where a call is approved: whose key it is.
    name = f"{key.principal.name}/{tx.new_id()}"
    request = request_of(
        live.release,
        spec,
        environment=place.environment,
        trigger=TriggerRef(kind=SESSION, source=source, key=name),
        value={},
        now_us=tx.now_us,
        priority=trigger.priority,
    )
    return replace(
        request,
        agent=place.seat.agent,
        seats=(place.seat,),
        deciding=(place.seat,),
        labels=tokens.labels_since(tx, key.key_id, tx.now_us - _REMEMBERED_US),
    )


def _issue(
    tx: Tx, run_id: RunId, key: ApiKey, *, until_us: int | None, with_refresh: bool = False
) -> Tokens:
    """Store new tokens; neither outlives the key or the session's deadline."""
    latest_us = min(us for us in (until_us, key.expires_us, _NEVER_US) if us is not None)
    access, refresh = ACCESS_PREFIX + secrets.token_urlsafe(32), None
    expires_us = min(tx.now_us + ACCESS_S * 1_000_000, latest_us)
    tokens.put(
        tx,
        run_id,
        token_hash=hash_token(access),
        kind="access",
        key_id=key.key_id,
        expires_us=expires_us,
    )
    if with_refresh:
        refresh = REFRESH_PREFIX + secrets.token_urlsafe(32)
        tokens.put(
            tx,
            run_id,
            token_hash=hash_token(refresh),
            kind="refresh",
            key_id=key.key_id,
            expires_us=latest_us,
        )
    told_s = max((expires_us - tx.now_us) * TOLD_S // ACCESS_S // 1_000_000, 0)
    return Tokens(run_id=run_id, access=access, expires_in_s=told_s, refresh=refresh)


_NEVER_US = 2**62
