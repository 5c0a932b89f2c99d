"""One open transaction: its time, its statements, and what it leaves for later."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

from psycopg import pq
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from uuid_utils import uuid7

from interlock.domain.clock import Clock
from interlock.domain.errors import InvariantError, UnavailableError
from interlock.domain.run import Run
from interlock.store import batch
from interlock.store.statement import Compiled, Row, Statement

Dialect = Literal["sqlite", "postgresql"]
Heard = Callable[[str, object], None]
"""Is given the text of a statement and its parameters, before it runs."""

PREPARED = "prepared"
"""Under this name a connection keeps what its server has prepared."""

_NOW_SQL = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us"
_NOW = batch.Ask(batch.query(_NOW_SQL))
_NOW_AND_ID = batch.Ask(batch.query(f"{_NOW_SQL}, pg_current_xact_id()::text AS id"))
_BEGIN = batch.Ask(batch.query("BEGIN"))
_BEGIN_READING = batch.Ask(batch.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
_COMMIT = batch.Ask(batch.query("COMMIT"))


class _Ready(NamedTuple):
    compiled: Compiled
    bound: Sequence[object]
    unless: Callable[[], Exception] | None = None


class _Asked(NamedTuple):
    statement: Statement
    values: tuple[tuple[str, object], ...]


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
        self._later: list[_Ready] = []
        self._expected: dict[_Asked, _Ready] = {}
        self._found: dict[_Asked, list[Row]] = {}
        self.locked: dict[str, Run] = {}
        """The runs whose rows this transaction has locked, so that nobody else moves them."""
        self._now_us: int | None = None
        self._postgres_id: str | None = None
        self._has_begun = False

    @property
    def connection(self) -> Connection:
        """Return the connection for statements of any kind; what was left for later goes first."""
        self.flush()
        self._begin()
        return self._connection

    def rows(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        """Run a statement of the road and return its rows; what was left for later goes first."""
        asked = _Asked(statement, tuple(values.items()))
        if asked in self._found:
            return self._found.pop(asked)
        compiled = statement.on(self._connection.dialect)
        ready = _Ready(compiled, compiled.bind(values))
        if self.dialect == "sqlite":
            self.flush()
            with self._driver(ready) as driver:
                found = driver.execute(compiled.sql, ready.bound).fetchall()
            return [compiled.row(row) for row in found]
        waiting, self._later = self._later, []
        expected, self._expected = {asked: ready, **self._expected}, {}
        done = self._send(*waiting, *expected.values())
        for (each, sent), answer in zip(expected.items(), done[len(waiting) :], strict=True):
            self._found[each] = [sent.compiled.row(row) for row in answer]
        return self._found.pop(asked)

    def expect(self, statement: Statement, values: Mapping[str, object]) -> None:
        """Say that these rows will be asked for, so that Postgres is asked with the next others.

        Only for what nothing in this transaction changes before.
        """
        if self.dialect == "postgresql":
            compiled = statement.on(self._connection.dialect)
            asked = _Asked(statement, tuple(values.items()))
            self._expected[asked] = _Ready(compiled, compiled.bind(values))

    def later(
        self,
        statement: Statement,
        *values: Mapping[str, object],
        unless: Callable[[], Exception] | None = None,
    ) -> None:
        """Run a statement of the road, at the latest before the next one that is not for later.

        All that wait go to Postgres at once. What `unless` returns is raised if no row changes; the
        statement then has to return what it changes.
        """
        compiled = statement.on(self._connection.dialect)
        self._later.extend(_Ready(compiled, compiled.bind(each), unless) for each in values)

    def lock(self, statement: Statement, values: Mapping[str, object]) -> None:
        """Run a statement that locks, at the latest before the next question.

        What was expected, and found before the lock is held, is asked once more.
        """
        found, self._found = self._found, {}
        for asked in found:
            self.expect(asked.statement, dict(asked.values))
        self.later(statement, values)

    def flush(self) -> None:
        """Run what was left for later."""
        if not self._later:
            return
        waiting, self._later = self._later, []
        if self.dialect == "postgresql":
            self._send(*waiting)
            return
        with self._driver(*waiting) as driver:
            counts = [_count(driver.execute(each.compiled.sql, each.bound)) for each in waiting]
        for each, count in zip(waiting, counts, strict=True):
            if each.unless is not None and not count:
                raise each.unless()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Undo what the block does, and no more, if it raises; for SQLite."""
        self._mark("SAVEPOINT apart")
        try:
            yield
            self.flush()
        except BaseException as error:
            self._later = []
            with self._driver() as driver:
                is_open = driver.in_transaction
            if not is_open:
                # As when the disk is full: what others did before is undone as well.
                raise UnavailableError("the database gave up the whole transaction") from error
            self._mark("ROLLBACK TO apart")
            self._mark("RELEASE apart")
            raise
        self._mark("RELEASE apart")

    def _mark(self, text: str) -> None:
        with self._driver() as driver:
            driver.execute(text)

    @contextmanager
    def _driver(self, *statements: _Ready) -> Iterator[Any]:
        """Give the driver's connection; its errors come out as those of any other statement."""
        if self._heard is not None:
            for statement in statements:
                self._heard(statement.compiled.sql, statement.bound)
        proxy, dialect = self._connection.connection, self._connection.dialect
        try:
            yield proxy.driver_connection
        except dialect.loaded_dbapi.Error as error:
            is_lost = dialect.is_disconnect(error, proxy, None)
            if is_lost:
                self._connection.invalidate(error)
            raise DBAPIError.instance(
                statements[0].compiled.sql if statements else "",
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

    @property
    def guessed_us(self) -> int:
        """Return about what `now_us` will be, without asking; only for what `expect` is given."""
        return time.time_ns() // 1000 if self._clock is None else self._clock.now_us()

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
        self._begin()
        return self._postgres_id

    def commit(self) -> None:
        """Run what was left for later and commit; on SQLite whoever opened the transaction does.

        On Postgres it is one batch: nobody is asked whether the last statements went well.
        """
        if self.dialect == "sqlite":
            self.flush()
        elif self._has_begun or self._later:
            self._begin()
            with self._driver() as driver:
                if driver.pgconn.transaction_status == pq.TransactionStatus.INERROR:
                    # Postgres would roll back, and call that a success.
                    raise InvariantError("a statement of the transaction has failed: no commit")
            waiting, self._later = self._later, []
            self._exchange(*_asks(waiting), _COMMIT, told=waiting)

    def _begin(self) -> None:
        """Begin on Postgres, where the first statement of the road would do so too."""
        if self.dialect == "postgresql" and not self._has_begun:
            self._send()

    def _ask_postgres(self) -> int:
        self._begin()
        if self._now_us is None:
            # Only a reading transaction was not told when it began.
            ((now_us,),) = self._exchange(_NOW)[0]
            return int(now_us)
        return self._now_us

    def _send(self, *statements: _Ready) -> list[batch.Rows]:
        """Send statements one after another without waiting, and return the rows of each.

        The first of a writing transaction asks for what every one of them needs as well.
        """
        asked = _asks(statements)
        if self._has_begun:
            return self._exchange(*asked, told=statements)
        self._has_begun = True
        if not self._is_writing:
            return self._exchange(_BEGIN_READING, *asked, told=statements)[1:]
        _, told, *done = self._exchange(_BEGIN, _NOW_AND_ID, *asked, told=statements)
        now_us, transaction_id = told[0]
        self._know(int(now_us), str(transaction_id))
        return done

    def _exchange(self, *asked: batch.Ask, told: Sequence[_Ready] = ()) -> list[batch.Rows]:
        prepared = self._connection.info.setdefault(PREPARED, batch.Prepared())
        with self._driver(*told) as driver:
            return batch.exchange(driver, prepared, asked)

    def _know(self, now_us: int, transaction_id: str) -> None:
        """Take what Postgres said of the transaction; a time that was read before stays."""
        self._postgres_id = transaction_id
        if self._clock is None and self._now_us is None:
            self._now_us = now_us


def _asks(statements: Sequence[_Ready]) -> list[batch.Ask]:
    """Return what Postgres is asked; no value gets into the text, which its log has."""
    return [
        batch.Ask(
            compiled.query if unless is None else compiled.strict, values=bound, unless=unless
        )
        for compiled, bound, unless in statements
    ]


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
