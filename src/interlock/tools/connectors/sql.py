"""Tools that are reviewed statements on a Postgres database: read only, one statement, bounded.

Values are bound by the server and never get into the text. A statement runs in a transaction that
can write nothing, and ends with it; what a role may see is for the database's own rights.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import cast
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo

from interlock.domain.canonical import Json, JsonObject, canonical, parse
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import InputError, InterlockError, JsonError, UnreachableError
from interlock.domain.tool import Server, SqlQuery
from interlock.tools.addresses import Address, Target, target_of
from interlock.tools.connectors.drain import Drain
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.egress import checked_addresses
from interlock.tools.requests.sql import parameters_of

MOST_OPEN = 4
"""Connections to one server at once; further calls wait for one of them."""
MOST_IDLE_S = 300.0
_CONNECT_S = 10
_TRUSTED_S = 2.0
"""For how long a connection that was used is taken to work."""
_MARGIN_S = 0.5
"""How much earlier than we the server gives up, so that it says so itself."""
_MESSAGE_LENGTH = 200
_AWAY = ("08", "53", "57")
"""Classes of SQLSTATE that speak of the server, or of a statement that took too long."""


class SqlConnector:
    """Reaches one database; raises `InputError` if its URL may not be reached."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._target = target_of(server.url or "", server.environment)
        self._places = asyncio.Semaphore(MOST_OPEN)
        self._idle: list[_Idle] = []
        self._drain = Drain()

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Return None: a statement has no guard that is fetched."""
        del call
        return None  # the port's type says `JsonObject | None`

    async def send(self, call: OutgoingCall) -> Reply:
        """Run the statement once and return what it found."""
        declared = call.binding.tool.request
        # INVARIANT: a tool with connector `sql` was loaded with a query.
        assert isinstance(declared, SqlQuery)
        most = call.binding.tool.limits.request_bytes
        if len(canonical(call.arguments)) > most:
            return _not_sent(f"the arguments have more than {most} bytes", is_final=True)
        try:
            values = parameters_of(
                declared, call.arguments, effect_id=call.effect_id, key=call.idem_key
            )
        except InputError as error:
            return _not_sent(error.message, is_final=True)
        is_sent = False
        with self._drain.call() as is_open:
            if not is_open:
                return _not_sent("the connector is closed")
            try:
                async with asyncio.timeout(call.timeout_s), self._connection(call) as connection:
                    is_sent = True
                    return await _answer(connection, declared, values, call)
            except TimeoutError:
                problem = f"no answer within {call.timeout_s:g} s"
            except UnreachableError as error:
                return _not_sent(error.message, is_unreachable=True)
            except InterlockError as error:
                return _not_sent(error.message)
            except _WithheldError as error:
                return _refused(str(error))
            except psycopg.Error as error:
                if is_sent and not _is_away(error):
                    # The statement would fail again.
                    return _refused(_told(error))
                problem = _told(error) if _state(error) else "the connection was lost"
        if is_sent:
            return Reply(transport=Transport.UNKNOWN, problem=problem)
        return _not_sent(problem, is_unreachable=True)

    async def aclose(self) -> None:
        """Wait for the calls under way, then close all connections."""
        await self._drain.close()
        while self._idle:
            await self._idle.pop().connection.close()

    @asynccontextmanager
    async def _connection(self, call: OutgoingCall) -> AsyncIterator[psycopg.AsyncConnection]:
        """Lend a connection of this credential; one that did not end in order is closed."""
        async with self._places:
            lent = await self._kept(call.secret)
            connection = lent or await self._connected(call.secret)
            try:
                yield connection
                self._idle.append(_Idle(call.secret, connection, _now_s()))
            except BaseException:
                await connection.close()
                raise

    async def _kept(self, secret: str | None) -> psycopg.AsyncConnection | None:
        """Take an idle connection of this very credential, and close those that are too old."""
        others: list[_Idle] = []
        try:
            while self._idle:
                idle = self._idle.pop()
                if idle.connection.closed or _now_s() - idle.since_s > MOST_IDLE_S:
                    await idle.connection.close()
                elif idle.secret != secret:
                    others.append(idle)
                elif await _still_answers(idle):
                    return idle.connection
        finally:
            self._idle.extend(others)
        return None

    async def _connected(self, secret: str | None) -> psycopg.AsyncConnection:
        """Connect to a checked address, with TLS unless it is a loopback one in `dev`."""
        user, colon, password = (secret or "").partition(":")
        if not (user and colon):
            raise InputError("the credential of a database is `user:password`")
        failure = "the host has no address"
        for address in await self._addresses():
            try:
                connection = await psycopg.AsyncConnection.connect(
                    conninfo_of(self._target, str(address), user=user, password=password)
                )
            except psycopg.OperationalError as error:
                if error.pgconn is not None and error.pgconn.used_password:
                    msg = "the database refused the credentials, or has no such database"
                    raise InputError(msg) from None
                failure = _told(error)
                continue
            await connection.set_read_only(True)
            return connection
        raise UnreachableError(f"`{self._target.host}` cannot be reached: {failure}")

    async def _addresses(self) -> tuple[Address, ...]:
        try:
            return await checked_addresses(self._target)
        except OSError as error:
            msg = f"the host `{self._target.host}` has no address: {error.strerror}"
            raise UnreachableError(msg) from error


class _WithheldError(Exception):
    """Says why of a result nothing is handed on."""


@dataclass(frozen=True, slots=True)
class _Idle:
    secret: str | None
    connection: psycopg.AsyncConnection
    since_s: float


def conninfo_of(target: Target, address: str, *, user: str, password: str) -> str:
    """Return how a database is connected to; the name is checked by TLS, the address is ours."""
    is_local = all(each.is_loopback for each in target.named) and bool(target.named)
    return make_conninfo(
        host=target.host,
        hostaddr=address,
        port=target.port,
        dbname=target.path.removeprefix("/"),
        user=user,
        password=password,
        sslmode="prefer" if is_local else "verify-full",
        sslrootcert="" if is_local else "system",
        connect_timeout=_CONNECT_S,
        application_name="interlock",
        # No file of this machine's user decides where a connection goes, or as whom.
        passfile="/dev/null",
        # Also for what would begin a transaction of its own.
        options="-c default_transaction_read_only=on",
        gssencmode="disable",
        channel_binding="prefer",
    )


async def _answer(
    connection: psycopg.AsyncConnection,
    query: SqlQuery,
    values: Mapping[str, object],
    call: OutgoingCall,
) -> Reply:
    limits = call.binding.tool.limits
    within_ms = max(round((call.timeout_s - _MARGIN_S) * 1000), 100)
    rows: list[Json] = []
    size, text = 0, query.statement.encode()
    async with connection.transaction(), connection.cursor() as cursor:
        timeout = {"ms": str(within_ms)}
        await cursor.execute("SELECT set_config('statement_timeout', %(ms)s, true)", timeout)
        # Streamed, which also means that the server takes exactly one statement.
        found_rows = cast("AsyncGenerator[tuple[object, ...]]", cursor.stream(text, values))
        async with aclosing(found_rows) as stream:
            async for found in stream:
                row = _row(cursor.description or (), found)
                rows.append(row)
                size += len(json.dumps(row, ensure_ascii=False).encode())
                if size > limits.response_bytes:
                    raise _WithheldError(f"the result has more than {limits.response_bytes} bytes")
                if query.returns == "row" and len(rows) > 1:
                    raise _WithheldError("the statement found more than one row")
    body: Json = {"rows": rows}
    if query.returns == "row":
        body = rows[0] if rows else None
    try:
        checked = parse(canonical(body), max_bytes=limits.response_bytes)
    except JsonError as error:
        raise _WithheldError(error.message) from None
    return Reply(transport=Transport.REPLY, status=200, body=checked)


def _row(columns: Sequence[psycopg.Column], found: Sequence[object]) -> JsonObject:
    row: JsonObject = {}
    for column, value in zip(columns, found, strict=True):
        if column.name in row:
            raise _WithheldError(f"two columns are called `{column.name}`; name them apart")
        try:
            row[column.name] = plain(value)
        except InputError:
            fix = "cast it in the statement"
            raise _WithheldError(
                f"the column `{column.name}` has a value without a JSON form; {fix}"
            ) from None
    return row


def plain(value: object) -> Json:
    """Return a value of a column as JSON that says exactly the same; raises `InputError`.

    >>> plain(Decimal("1.10")), plain(date(2026, 11, 22))
    ('1.10', '2026-11-22')
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if isfinite(value):
            return value
        case Decimal() if value.is_finite():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {str(name): plain(item) for name, item in value.items()}
        case _:
            raise InputError(f"a `{type(value).__name__}` has no JSON form")


async def _still_answers(idle: _Idle) -> bool:
    """Whether the server still knows a connection; one that it does not is closed."""
    if _now_s() - idle.since_s < _TRUSTED_S:
        return True
    try:
        await idle.connection.execute("")
        await idle.connection.commit()
    except psycopg.Error:
        await idle.connection.close()
        return False
    return True


def _told(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error).partition("\n")[0]
    state = _state(error)
    return f"{f'{state}: ' if state else ''}{said}"[:_MESSAGE_LENGTH]


def _state(error: psycopg.Error) -> str:
    return error.sqlstate or error.diag.sqlstate or ""


def _is_away(error: psycopg.Error) -> bool:
    """Whether an error speaks of the server, and not of the statement or what it found."""
    state = _state(error)
    is_broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(_AWAY) if state else is_broken


def _refused(problem: str) -> Reply:
    """Return an answer that would come again."""
    return Reply(transport=Transport.REPLY, status=200, is_error=True, problem=problem)


def _not_sent(problem: str, *, is_final: bool = False, is_unreachable: bool = False) -> Reply:
    return Reply(
        transport=Transport.NOT_SENT,
        problem=problem,
        is_final=is_final,
        is_unreachable=is_unreachable,
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
