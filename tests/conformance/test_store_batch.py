"""Batches on Postgres: what was prepared and forgotten, what is large, and what breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    ClauseElement,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DataError, DBAPIError

from interlock.domain.errors import ConflictError, InvariantError, UnavailableError
from interlock.store import effects, engine
from interlock.store.engine import Database
from interlock.store.statement import Statement
from interlock.store.tables.runs import leader
from interlock.store.tx import Tx

LARGE = 1_000_000
ECHO = Statement(select(cast(bindparam("text"), Text).label("text")))
REPEAT = Statement(select(func.repeat("x", LARGE).label("text")))
COUNT = Statement(select(func.count().label("counted")).select_from(leader))
TERMINATE = Statement(select(func.pg_terminate_backend(func.pg_backend_pid()).label("done")))
ROW = {"role": "a", "executor_id": "w", "lease_end_us": 1}
DIVIDE = Statement(select((literal(1) / bindparam("by")).label("quotient")))


@pytest.fixture
def db(migrated_postgres_url: str) -> Iterator[Database]:
    """Give a database on Postgres."""
    db = Database(migrated_postgres_url)
    yield db
    db.close()


def echo(tx: Tx, text: str = "a") -> str:
    """Return a text by a statement that is prepared."""
    (row,) = tx.rows(ECHO, {"text": text})
    return str(row["text"])


def driver_of(tx: Tx) -> psycopg.Connection:
    """Return the connection of a transaction as its driver has it."""
    driver = tx.connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def test_what_the_server_forgot_after_a_rollback_is_prepared_again(db: Database) -> None:
    """Psycopg lets the server forget all that is prepared once it has rolled back."""

    def fail(tx: Tx) -> None:
        echo(tx)
        driver_of(tx).execute("SELECT 1", prepare=True)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.run("test.fails", fail)

    assert db.run("test.next", echo) == "a"


def test_rollback_does_not_prepare_twice_what_the_server_still_knows(db: Database) -> None:
    """Psycopg lets the server forget nothing if it has prepared nothing itself."""

    def fail(tx: Tx) -> None:
        echo(tx)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.run("test.fails", fail)

    assert db.run("test.next", echo) == "a"


def test_statements_that_somebody_made_the_server_forget_are_tried_again(db: Database) -> None:
    """As by a pooler between: the transaction fails, and its next try prepares them."""
    tries: list[str] = []

    def work(tx: Tx) -> str:
        tries.append(echo(tx))
        if len(tries) == 1:
            driver_of(tx).execute("DEALLOCATE ALL")
        return echo(tx)

    assert ("a", ["a", "a"]) == (db.run("test.work", work), tries)


def test_error_of_one_statement_keeps_those_after_it_from_running(db: Database) -> None:
    """What was sent with it in one batch is undone, and the connection serves on."""

    def fail(tx: Tx) -> None:
        tx.insert(leader, ROW)
        tx.expect(ECHO, {"text": "after"})
        tx.rows(DIVIDE, {"by": 0})

    with pytest.raises(DBAPIError):
        db.run("test.fails", fail)
    with db.transaction("test.next") as tx:
        rows = tx.connection.execute(select(leader.c.role)).all()
        quotient = tx.rows(DIVIDE, {"by": 1})[0]["quotient"]

    assert ([], 1) == (rows, quotient)


@pytest.mark.parametrize("is_asked_before_the_end", [True, False])
def test_write_that_must_change_something_undoes_the_commit_sent_with_it(
    db: Database, *, is_asked_before_the_end: bool
) -> None:
    """Nobody looks at the answer of a last write before COMMIT follows; the server does."""

    def write_twice(tx: Tx) -> None:
        tx.upsert(leader, {**ROW, "role": "b"})
        for _ in range(2):
            tx.insert_new(leader, ROW, unless=lambda: ConflictError("it is there"))
        tx.upsert(leader, {**ROW, "role": "c"})
        if is_asked_before_the_end:
            echo(tx)

    with pytest.raises(ConflictError, match="it is there"):
        db.run("test.twice", write_twice)

    with db.transaction("test.next") as tx:
        found = tx.connection.execute(select(leader.c.role)).all()
    assert ([], "a") == (found, db.run("test.echo", echo))


def test_division_by_zero_of_others_stays_what_it_is(db: Database) -> None:
    """Only a statement that must change something means another error by it."""

    def divide(tx: Tx) -> None:
        tx.insert_new(leader, ROW, unless=lambda: ConflictError("it is there"))
        tx.rows(DIVIDE, {"by": 0})

    with pytest.raises(DataError):
        db.run("test.divide", divide)


def test_what_was_found_before_a_lock_is_asked_once_more(db: Database) -> None:
    """What others have committed in between is seen: the lock is for that."""
    db.run("test.write", lambda tx: tx.insert(leader, ROW))
    other = Database(db.url)

    def read(key: str | None) -> int:
        with db.transaction("test.read") as tx:
            tx.expect(COUNT, {})
            echo(tx)
            other.run("test.other", lambda tx: tx.insert(leader, {**ROW, "role": tx.new_id()}))
            if key is not None:
                effects.lock_key(tx, key)
            return int(tx.rows(COUNT, {})[0]["counted"])

    assert (1, 3) == (read(None), read("key"))
    other.close()


@pytest.mark.parametrize("is_freed", [True, False])
def test_statement_refused_with_the_commit_is_tried_again_for_a_while(
    db: Database, monkeypatch: pytest.MonkeyPatch, *, is_freed: bool
) -> None:
    """The server has said that nothing is committed, so that nobody asks it; it ends in time."""
    monkeypatch.setattr(engine, "RETRY_FOR_S", 30.0 if is_freed else 0.0)
    db.run("test.write", lambda tx: tx.insert(leader, ROW))
    other = Database(db.url)
    tries: list[int] = []

    def change(tx: Tx) -> None:
        tx.connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
        tries.append(1)
        if len(tries) == 2:
            held.close()
        tx.upsert(leader, {**ROW, "executor_id": "new"})

    with ExitStack() as held, db.listening(lambda sql, _: asked.append(sql)):
        asked: list[str] = []
        holder = held.enter_context(other.transaction("test.hold"))
        holder.connection.execute(update(leader).values(executor_id="held"))
        if is_freed:
            db.run("test.change", change)
        else:
            with pytest.raises(UnavailableError, match="lock timeout"):
                db.run("test.change", change)

    with db.reading() as tx:
        by = tx.connection.execute(select(leader.c.executor_id)).scalar_one()
    assert ("new", 2) == (by, len(tries)) if is_freed else ("held", 1) == (by, len(tries))
    assert not [sql for sql in asked if "pg_xact_status" in sql]
    other.close()


def test_transaction_in_which_a_statement_has_failed_is_not_committed(db: Database) -> None:
    """Postgres would roll it back and call that a success."""

    def go_on(tx: Tx) -> None:
        tx.insert_new(leader, ROW, unless=lambda: ConflictError("it is there"))
        tx.insert_new(leader, ROW, unless=lambda: ConflictError("it is there"))
        with pytest.raises(ConflictError):
            tx.flush()

    with pytest.raises(InvariantError, match="no commit"):
        db.run("test.goes_on", go_on)


def test_much_goes_both_ways_at_once(db: Database) -> None:
    """More than lies between client and server does not let each wait for the other to read."""
    texts = [str(number) + "x" * LARGE for number in range(20)]

    with db.transaction("test.large") as tx:
        for text in texts:
            tx.later(ECHO, {"text": text})
        for text in texts:
            tx.expect(ECHO, {"text": text})
        (row,) = tx.rows(REPEAT, {})
        found = [echo(tx, text) for text in texts]

    assert (texts, LARGE) == (found, len(row["text"]))


def test_text_that_the_server_cannot_hold_is_refused(db: Database) -> None:
    """It is not cut off at the character that ends a text in C."""
    with pytest.raises(DataError):
        db.run("test.nul", lambda tx: echo(tx, "a\0b"))


def test_connection_that_ends_within_a_batch_is_not_used_again(db: Database) -> None:
    """The transaction is tried again on another one."""
    tries: list[int] = []

    def end_once(tx: Tx) -> str:
        tries.append(1)
        if len(tries) == 1:
            tx.rows(TERMINATE, {})
        return echo(tx)

    assert ("a", 2) == (db.run("test.ends", end_once), len(tries))


def test_values_of_all_kinds_return_as_they_were(db: Database) -> None:
    """The same as by SQLAlchemy: flags, numbers of any size, bytes, nothing."""
    values = {"flag": True, "small": 5, "large": 2**62, "raw": b"\0\xff", "none": None}
    types = (Boolean, Integer, BigInteger, LargeBinary, Text)
    query: ClauseElement = select(
        *[
            cast(literal(value), type_).label(name)
            for (name, value), type_ in zip(values.items(), types, strict=True)
        ]
    )

    with db.reading() as tx:
        (row,) = tx.rows(Statement(query), {})

    assert values == dict(row)


def test_reading_transaction_writes_nothing(db: Database) -> None:
    """Also if its first statement is one of the road."""

    def read() -> None:
        with db.reading() as tx:
            echo(tx)
            tx.connection.execute(insert(leader).values(ROW))

    with pytest.raises(DBAPIError):
        read()
