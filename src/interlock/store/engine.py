"""The database: one engine, named transactions with crash points, retries of infrastructure errors.

SQLite and Postgres behave alike here: a transaction sees a stable clock, commits as a whole, and a
lost connection, lock or serialization failure is an `UnavailableError`, never an error of a run.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from interlock.domain.clock import Clock
from interlock.domain.errors import InputError, InvariantError, UnavailableError
from interlock.store.tx import PREPARED, Dialect, Heard, Tx

T = TypeVar("T")

RETRY_FOR_S = 60.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
POSTGRES_POOL_SIZE = 20

# Primary result codes of SQLite that tell of the machine, not of the statement.
_SQLITE_INFRASTRUCTURE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_NOMEM,
    }
)


class CrashPoints:
    """Named instants at which a process can be made to kill itself, for crash tests.

    Armed by a file whose text is `<point name>` or `<point name> <tool name>`. It fires once: the
    file is removed first. Without a file this does nothing.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    @property
    def are_armed(self) -> bool:
        """Return whether any point can kill; else nobody has to come by all of them."""
        return self._file is not None

    def reach(self, name: str, *, tool: str | None = None) -> None:
        """Kill this process with signal 9 if this point (of this tool) is armed."""
        if self._file is None:
            return
        try:
            armed, _, armed_tool = self._file.read_text().strip().partition(" ")
            if armed != name or (armed_tool and armed_tool != tool):
                return
            self._file.unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A transaction that has yet to run: its name, what it does, and the tool that it is about."""

    name: str
    fn: Callable[[Tx], object]
    tool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a transaction ended: its result, or the error that rolled it back."""

    result: object = None
    error: Exception | None = None


class _CommitUnknownError(UnavailableError):
    """The connection broke during COMMIT: only Postgres knows whether it happened."""

    def __init__(self, message: str, *, transaction_id: str) -> None:
        super().__init__(message)
        self.transaction_id = transaction_id


class Database:
    """One database, shared by the store and the engine of durable runs.

    Transactions of one thread must not nest: SQLite has one connection, so that would deadlock;
    it raises `InvariantError` on both databases.
    """

    def __init__(
        self, url: str, *, clock: Clock | None = None, points: CrashPoints | None = None
    ) -> None:
        self.engine = _create_engine(url)
        self.url = self.engine.url.render_as_string(hide_password=False)
        self.dialect: Dialect = "sqlite" if self.engine.dialect.name == "sqlite" else "postgresql"
        self.points = points or CrashPoints()
        self.pool_size = 1 if self.dialect == "sqlite" else POSTGRES_POOL_SIZE
        self.clock = clock
        self._open = threading.local()
        self._heard: Heard | None = None

    @contextmanager
    def listening(self, heard: Heard) -> Iterator[None]:
        """Let `heard` have every statement of this process until the block ends, and `COMMIT`."""

        def of_engine(*told: Any) -> None:  # noqa: ANN401  # SQLAlchemy's signature
            heard(told[2], told[3])

        def commits(_connection: Connection) -> None:
            heard("COMMIT", None)

        hooks = {"before_cursor_execute": of_engine, "commit": commits}
        for name, hook in hooks.items():
            event.listen(self.engine, name, hook)
        self._heard = heard
        try:
            yield
        finally:
            self._heard = None
            for name, hook in hooks.items():
                event.remove(self.engine, name, hook)

    def _tx(self, connection: Connection, *, is_writing: bool = True) -> Tx:
        return Tx(connection, clock=self.clock, is_writing=is_writing, heard=self._heard)

    def run(self, name: str, fn: Callable[[Tx], T], *, tool: str | None = None) -> T:
        """Run `fn` in a transaction of that name, retried on infrastructure errors for a minute.

        `fn` may run several times, but takes effect once: if the connection breaks during COMMIT,
        Postgres is asked whether it happened. Raises `UnavailableError` when the time is over.
        """
        deadline = time.monotonic() + RETRY_FOR_S
        pauses = _pauses()
        while True:
            results: list[T] = []
            try:
                with self.transaction(name, tool=tool) as tx:
                    results.append(fn(tx))
            except _CommitUnknownError as error:
                if self._has_committed(error, deadline):
                    return results[0]
                if time.monotonic() > deadline:
                    raise
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            else:
                return results[0]
            time.sleep(next(pauses))

    def run_together(self, works: Sequence[Work]) -> list[Done]:
        """Run transactions one after another; each takes effect or fails for itself.

        With one commit on SQLite, where it costs more than most transactions. If that fails, or the
        machine gives trouble before, and on Postgres, each is run for itself as by `run`.
        """
        if self.dialect == "sqlite" and len(works) > 1:
            try:
                return self._in_one_commit(works)
            except UnavailableError:
                pass
        return [self._for_itself(work) for work in works]

    def _in_one_commit(self, works: Sequence[Work]) -> list[Done]:
        with self._alone(), _translated(), self.engine.connect() as connection:
            transaction = connection.begin()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with transaction:
                done = [self._nested(connection, work) for work in works]
                transaction.commit()
        for work, how in zip(works, done, strict=True):
            if how.error is None:
                self.points.reach(f"{work.name}.after", tool=work.tool)
        return done

    def _nested(self, connection: Connection, work: Work) -> Done:
        tx = self._tx(connection)
        try:
            with tx.apart():
                result = work.fn(tx)
                tx.flush()
                self.points.reach(f"{work.name}.before", tool=work.tool)
        except Exception as error:
            if isinstance(error, UnavailableError) or (
                isinstance(error, DBAPIError) and _is_infrastructure(error)
            ):
                raise
            return Done(error=error)
        return Done(result=result)

    def _for_itself(self, work: Work) -> Done:
        try:
            return Done(result=self.run(work.name, work.fn, tool=work.tool))
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits is told
            return Done(error=error)

    @contextmanager
    def transaction(self, name: str, *, tool: str | None = None) -> Iterator[Tx]:
        """Open a writing transaction; commit at the end of the block, roll back on any error.

        Its crash points are `<name>.before` (all statements done, which otherwise go with COMMIT on
        Postgres) and `<name>.after` (committed).
        Infrastructure errors raise `UnavailableError`.
        """
        with (
            self._alone(),
            _translated(),
            self.engine.connect() as connection,
        ):
            transaction = connection.begin()
            if self.dialect == "sqlite":
                # Readers that turn into writers would fail at once; so take the lock now.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            tx = self._tx(connection)
            with transaction:
                yield tx
                if self.points.are_armed:
                    tx.flush()
                    self.points.reach(f"{name}.before", tool=tool)
                with _commit_unknown(tx.transaction_id()):
                    tx.commit()
                    transaction.commit()
        self.points.reach(f"{name}.after", tool=tool)

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """Open a read-only transaction that sees one snapshot of the database."""
        with self._alone(), _translated(), self.engine.connect() as connection:
            if self.dialect == "sqlite":
                with connection.begin(), _query_only(connection):
                    yield self._tx(connection, is_writing=False)
            else:
                with connection.begin():
                    tx = self._tx(connection, is_writing=False)
                    yield tx
                    tx.commit()

    def version(self, tx: Tx) -> str:
        """Return the database's product and version, as `SQLite 3.45.1`."""
        if self.dialect == "sqlite":
            return f"SQLite {sqlite3.sqlite_version}"
        return f"PostgreSQL {tx.connection.execute(text('SHOW server_version')).scalar_one()}"

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if getattr(self._open, "is_open", False):
            raise InvariantError("a transaction is already open in this thread")
        self._open.is_open = True
        try:
            yield
        finally:
            self._open.is_open = False

    def _has_committed(self, error: _CommitUnknownError, deadline: float) -> bool:
        for pause in _pauses():
            try:
                with self.reading() as tx:
                    status = tx.connection.execute(
                        _POSTGRES_STATUS, {"id": error.transaction_id}
                    ).scalar_one()
            except UnavailableError:
                status = None
            if status in ("committed", "aborted"):
                return bool(status == "committed")
            if time.monotonic() > deadline:
                raise error
            time.sleep(pause)
        raise InvariantError("the pauses came to an end")


_POSTGRES_STATUS = text("SELECT pg_xact_status(CAST(CAST(:id AS text) AS xid8))")


def _create_engine(address: str) -> Engine:
    """Make the engine; what is written to rows never gets into messages of errors."""
    url = make_url(address)
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=POSTGRES_POOL_SIZE,
            max_overflow=0,
            connect_args={"application_name": "interlock", "connect_timeout": 10},
            hide_parameters=True,
        )
        event.listen(engine, "checkin", _note_idle)
        event.listen(engine, "rollback", _forget_prepared)
        event.listen(engine, "checkout", _check_idle)
        event.listen(engine, "connect", _prepare_postgres)
        return engine
    if url.drivername != "sqlite" or url.database in (None, "", ":memory:"):
        raise InputError(
            f"the database `{url.render_as_string()}` is not usable,"
            " give `sqlite:///<file>` or `postgresql://...`"
        )
    # One connection: writers queue in this process instead of failing on the file's lock.
    engine = create_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _forget_prepared(connection: Connection) -> None:
    """Do not rely after a rollback on what was prepared before."""
    if connection.invalidated:
        return
    driver = connection.connection.driver_connection
    # INVARIANT: the engine has no other driver.
    assert isinstance(driver, psycopg.Connection)
    if driver.info.transaction_status != pq.TransactionStatus.IDLE:
        connection.info.pop(PREPARED, None)


_IDLE_S = 1.0


def _note_idle(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info["idle_since_s"] = time.monotonic()


def _check_idle(
    connection: psycopg.Connection | None, entry: ConnectionPoolEntry, _proxy: object
) -> None:
    """Try a connection that was idle for long, so that a restart of the server is not noticed.

    Not at every use, which would add a round trip to every transaction.
    """
    if connection is None or time.monotonic() - entry.info.get("idle_since_s", 0.0) < _IDLE_S:
        return
    try:
        connection.execute("")
        connection.commit()
    except psycopg.Error:
        # All others are as old.
        raise InvalidatePoolError from None


_POSTGRES_SETTINGS = {
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
}
"""So that the server frees what a client holds, or queues for, that has left the network.

The limit of idleness does not end a session that was cut off in the middle of a batch, nor do
keepalives one whose answer nobody acknowledged: `tcp_user_timeout` does. Others would wait for its
locks for so long that they lose their own leases. Whoever waits here in vain tries again.
"""


def _prepare_postgres(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for name, value in _POSTGRES_SETTINGS.items():
        cursor.execute(f"SET {name} = '{value}'")
    cursor.close()
    connection.commit()


_BUSY_S = 30.0
_LOOK_S = 0.01


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver begins writing transactions of DBOS with this word; ours begin explicitly.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={round(_BUSY_S * 1000)}").close()
    _log_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Change to a write-ahead log; SQLite does not wait by itself while others do the same."""
    deadline_s = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return


@contextmanager
def _query_only(connection: Connection) -> Iterator[None]:
    connection.exec_driver_sql("PRAGMA query_only=ON")
    try:
        connection.exec_driver_sql("BEGIN")
        yield
    finally:
        connection.exec_driver_sql("PRAGMA query_only=OFF")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise UnavailableError("all database connections are in use") from error
    except DBAPIError as error:
        if not _is_infrastructure(error):
            raise
        raise UnavailableError(f"the database is not available: {_first_line(error)}") from error


@contextmanager
def _commit_unknown(transaction_id: str | None) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        # A server that says what went wrong has not committed.
        if transaction_id is None or not error.connection_invalidated:
            raise
        raise _CommitUnknownError(
            f"the database went away during a commit: {_first_line(error)}",
            transaction_id=transaction_id,
        ) from error


def _is_infrastructure(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        # The extended code's low byte is the primary one.
        return (getattr(error.orig, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_INFRASTRUCTURE
    return isinstance(error, OperationalError)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).partition("\n")[0]


def _pauses() -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.5)  # noqa: S311  # spreads load, keeps no secret
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
