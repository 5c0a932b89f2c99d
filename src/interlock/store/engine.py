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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from uuid_utils import uuid7

from interlock.domain.clock import Clock
from interlock.domain.errors import InputError, InvariantError, UnavailableError
from interlock.domain.run import Run
from interlock.store.statement import Row, Statement

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]
Heard = Callable[[str, object], None]
"""Is given the text of a statement and its parameters, before it runs."""

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


class _Later(NamedTuple):
    sql: str
    bound: object
    unless: Callable[[], Exception] | None


class Tx:
    """One open transaction; valid only inside the block that opened it."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock | None = None,
        is_writing: bool = True,
        heard: Heard | None = None,
    ) -> None:
        self._connection = connection
        self.dialect: Dialect = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
        """Which database this is, for the few statements that differ."""
        self._clock = clock
        self._is_writing = is_writing
        self._heard = heard
        self._later: list[_Later] = []
        self.locked: dict[str, Run] = {}
        """The runs whose rows this transaction has locked, so that nobody else moves them."""
        self._now_us: int | None = None
        self._postgres_id: str | None = None

    @property
    def connection(self) -> Connection:
        """Return the connection for statements of any kind; what was left for later goes first."""
        self.flush()
        return self._connection

    def rows(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        """Run a statement of the road and return its rows; what was left for later goes first."""
        self.flush()
        compiled = statement.on(self._connection.dialect)
        bound = compiled.bind(values)
        with self._driver((compiled.sql, bound)) as driver:
            if self.dialect == "sqlite" or not self._is_writing or self._postgres_id is not None:
                cursor = driver.execute(compiled.sql, bound)
            else:
                # What every writing transaction needs comes with its first statement.
                cursor = _sent_together(
                    driver, (_POSTGRES_NOW_AND_ID.text, {}), (compiled.sql, bound)
                )
                told = cursor.fetchone()
                # INVARIANT: it is one row, whatever is there.
                assert told is not None
                self._know(int(told[0]), str(told[1]))
                cursor.nextset()
            return [compiled.row(row) for row in cursor.fetchall()] if compiled.columns else []

    def later(
        self,
        statement: Statement,
        *values: Mapping[str, object],
        unless: Callable[[], Exception] | None = None,
    ) -> None:
        """Run a statement of the road, at the latest before the next one that is not for later.

        All that wait go to Postgres at once. What `unless` returns is raised if no row changes.
        """
        compiled = statement.on(self._connection.dialect)
        self._later.extend(
            _Later(sql=compiled.sql, bound=compiled.bind(each), unless=unless) for each in values
        )

    def flush(self) -> None:
        """Run what was left for later."""
        if not self._later:
            return
        waiting, self._later = self._later, []
        with self._driver(*[(each.sql, each.bound) for each in waiting]) as driver:
            if self.dialect == "sqlite":
                counts = [_count(driver.execute(each.sql, each.bound)) for each in waiting]
            else:
                cursor = _sent_together(driver, *[(each.sql, each.bound) for each in waiting])
                counts = [cursor.rowcount]
                while cursor.nextset():
                    counts.append(cursor.rowcount)
        for each, count in zip(waiting, counts, strict=True):
            if each.unless is not None and not count:
                raise each.unless()

    @contextmanager
    def _driver(self, *statements: tuple[str, object]) -> Iterator[Any]:
        """Give the driver's connection; its errors come out as those of any other statement."""
        if self._heard is not None:
            for statement in statements:
                self._heard(*statement)
        proxy, dialect = self._connection.connection, self._connection.dialect
        try:
            yield proxy.driver_connection
        except dialect.loaded_dbapi.Error as error:
            is_lost = dialect.is_disconnect(error, proxy, None)
            if is_lost:
                self._connection.invalidate(error)
            raise DBAPIError.instance(
                statements[0][0],
                None,
                error,
                dialect.loaded_dbapi.Error,
                hide_parameters=True,
                connection_invalidated=is_lost,
                dialect=dialect,
            ) from error

    @property
    def now_us(self) -> int:
        """Return the time of this transaction: the injected clock's, else the database's.

        Read at first use and the same from then on. On SQLite it is this machine's clock.
        """
        if self._now_us is None:
            if self._clock is not None:
                self._now_us = self._clock.now_us()
            elif self.dialect == "sqlite":
                self._now_us = time.time_ns() // 1000
            else:
                self._now_us = self._ask_postgres()
        return self._now_us

    def new_id(self) -> str:
        """Return a new UUIDv7; those of one process sort in the order of these calls."""
        return str(uuid7())

    def insert_once(self, table: Table, values: Mapping[str, object]) -> bool:
        """Insert a row unless any unique key of the table forbids it; return whether it is new."""
        # Both databases return nothing for a row that was not inserted.
        return bool(self.rows(_insert_once(self.dialect, table, tuple(values)), values))

    def insert(self, table: Table, values: Mapping[str, object]) -> None:
        """Insert a row later."""
        self.later(_insert(table, tuple(values)), values)

    def insert_new(
        self, table: Table, values: Mapping[str, object], *, unless: Callable[[], Exception]
    ) -> None:
        """Insert a row later; what `unless` returns is raised if a unique key forbids it."""
        self.later(_insert_once(self.dialect, table, tuple(values)), values, unless=unless)

    def upsert(self, table: Table, values: Mapping[str, object]) -> None:
        """Insert a row, or set all other given columns of the row with the same primary key."""
        self.later(_upsert(self.dialect, table, tuple(values)), values)

    def transaction_id(self) -> str | None:
        """Return Postgres' id of this writing transaction, None on SQLite."""
        if self.dialect == "postgresql" and self._postgres_id is None:
            self._ask_postgres()
        return self._postgres_id

    def _ask_postgres(self) -> int:
        if not self._is_writing:
            return int(self.connection.execute(_POSTGRES_NOW).scalar_one())
        # One round trip for both, since every writing transaction needs both.
        row = self.connection.execute(_POSTGRES_NOW_AND_ID).one()
        self._know(row.now_us, row.id)
        return int(row.now_us)

    def _know(self, now_us: int, transaction_id: str) -> None:
        """Take what Postgres said of the transaction; a time that was read before stays."""
        self._postgres_id = transaction_id
        if self._clock is None and self._now_us is None:
            self._now_us = now_us


def _sent_together(
    driver: psycopg.Connection, *statements: tuple[str, Any]
) -> psycopg.ClientCursor[tuple[Any, ...]]:
    """Send statements in one message, in order; the cursor is at the result of the first.

    That is a third of the work of sending them one by one, prepared or not.
    """
    cursor = psycopg.ClientCursor(driver)
    texts = [cursor.mogrify(sql, bound) for sql, bound in statements]
    return cursor.execute(";\n".join(texts))  # each was quoted by the driver


def _count(cursor: sqlite3.Cursor) -> int:
    """Return how many rows a statement has changed; one that returns them has to be read first."""
    return len(cursor.fetchall()) if cursor.description else cursor.rowcount


# Statements are made once: making one takes longer than running it.


def insert_into(dialect: Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that can say what to do about a row that is there."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _insert(table: Table, names: tuple[str, ...]) -> Statement:
    return Statement(table.insert(), *names)


@cache
def _insert_once(dialect: Dialect, table: Table, names: tuple[str, ...]) -> Statement:
    statement = insert_into(dialect, table).on_conflict_do_nothing()
    return Statement(statement.returning(*table.primary_key.columns), *names)


@cache
def _upsert(dialect: Dialect, table: Table, names: tuple[str, ...]) -> Statement:
    keys = [column.name for column in table.primary_key]
    statement = insert_into(dialect, table)
    changes = {name: statement.excluded[name] for name in names if name not in keys}
    return Statement(statement.on_conflict_do_update(index_elements=keys, set_=changes), *names)


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
        self._clock = clock
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
        return Tx(connection, clock=self._clock, is_writing=is_writing, heard=self._heard)

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
        try:
            with connection.begin_nested():
                tx = self._tx(connection)
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

        Its crash points are `<name>.before` (all statements done) and `<name>.after` (committed).
        Infrastructure errors raise `UnavailableError`.
        """
        with self._alone(), _translated(), self.engine.connect() as connection:
            transaction = connection.begin()
            if self.dialect == "sqlite":
                # Readers that turn into writers would fail at once; so take the lock now.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            tx = self._tx(connection)
            with transaction:
                yield tx
                tx.flush()
                transaction_id = tx.transaction_id()
                self.points.reach(f"{name}.before", tool=tool)
                with _commit_unknown(transaction_id):
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
                snapshot = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                with snapshot.begin():
                    yield self._tx(snapshot, is_writing=False)

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


_POSTGRES_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us")
_POSTGRES_NOW_AND_ID = text(f"{_POSTGRES_NOW.text}, pg_current_xact_id()::text AS id")
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
        connection.rollback()
    except psycopg.Error:
        # All others are as old.
        raise InvalidatePoolError from None


_POSTGRES_SETTINGS = {
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "5s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
"""So that the server frees what a client holds, or queues for, that has left the network.

Others would wait for its locks for so long that they lose their own leases. Whoever waits here in
vain tries again.
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
        if transaction_id is None or not _is_infrastructure(error):
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
