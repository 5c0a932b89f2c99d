"""The database itself: transactions, time, crash points, infrastructure errors, migrations."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import false, insert, literal, make_url, null, select, text, true
from sqlalchemy.exc import DBAPIError, IntegrityError

from interlock.domain.errors import InputError, InvariantError, UnavailableError
from interlock.store import migrate
from interlock.store.engine import CrashPoints, Database, Work
from interlock.store.statement import Statement
from interlock.store.tables.runs import leader
from interlock.store.tables.schema import metadata
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.postgres_proxy import CommitEater

DIE_AT = """
import sys
from pathlib import Path
from sqlalchemy import insert
from interlock.store.engine import CrashPoints, Database
from interlock.store.tables.runs import leader

db = Database(sys.argv[1], points=CrashPoints(Path(sys.argv[2])))
for tool in ("a", "b"):
    with db.transaction("test.write", tool=tool) as tx:
        row = {"role": tool, "executor_id": "w", "lease_end_us": 1}
        tx.connection.execute(insert(leader).values(row))
"""


LEADERS = Statement(select(leader))


def write(tx: Tx, role: str = "sweep") -> str:
    """Write one row of any table and return its key."""
    values = {"role": role, "executor_id": "w", "lease_end_us": 1}
    tx.connection.execute(insert(leader).values(values))
    return role


def roles(db: Database) -> set[str]:
    """Return the keys of the rows that `write` wrote."""
    with db.reading() as tx:
        return set(tx.connection.execute(select(leader.c.role)).scalars())


def test_transaction_commits_at_its_end(db: Database) -> None:
    """What a block wrote is there after it."""
    with db.transaction("test.write") as tx:
        write(tx)

    assert {"sweep"} == roles(db)


def test_error_rolls_the_transaction_back(db: Database) -> None:
    """An error in the block leaves nothing behind and comes out as it is."""

    def fail(tx: Tx) -> None:
        write(tx)
        raise KeyError

    with pytest.raises(KeyError):
        db.run("test.write", fail)

    assert set() == roles(db)


def test_reading_cannot_write(db: Database) -> None:
    """A reading transaction refuses to write, and the connection can write again after it."""
    with pytest.raises(DBAPIError), db.reading() as tx:
        write(tx)

    db.run("test.write", write)

    assert {"sweep"} == roles(db)


def test_transactions_of_a_thread_do_not_nest(db: Database) -> None:
    """A second transaction in the same thread is an error, not a deadlock."""
    with db.transaction("outer"), pytest.raises(InvariantError), db.reading():
        pass


def test_clock_is_read_once_per_transaction(db: Database, clock: ManualClock) -> None:
    """`now_us` is the injected clock's, and stands still inside one transaction."""
    with db.transaction("test.time") as tx:
        first = tx.now_us
        clock.advance(1)
        second = tx.now_us
    with db.reading() as tx:
        later = tx.now_us

    assert (START_US, START_US, START_US + 1_000_000) == (first, second, later)


def test_database_tells_the_time_without_a_clock(store_url: str) -> None:
    """Without an injected clock, writers and readers get real microseconds that go forward."""
    db = Database(store_url)

    with db.transaction("test.time") as tx:
        first = tx.now_us
    with db.reading() as tx:
        second = tx.now_us
    db.close()

    assert START_US < first < second


def test_version_names_the_product(db: Database) -> None:
    """For people: which database this is."""
    with db.reading() as tx:
        version = db.version(tx)

    product, _, number = version.partition(" ")
    assert {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[db.dialect] == product
    assert number[0].isdigit()


def test_new_ids_sort_in_the_order_they_were_made(db: Database) -> None:
    """Ids of one process grow, so that rows can be ordered by them."""
    with db.reading() as tx:
        made = [tx.new_id() for _ in range(1000)]

    assert sorted(set(made)) == made


@pytest.mark.parametrize(
    ("armed", "left"),
    [
        ("test.write.before", set()),
        ("test.write.after", {"a"}),
        ("test.write.before b", {"a"}),
        ("test.write.after b", {"a", "b"}),
    ],
)
def test_crash_point_kills_the_process_once(
    db: Database, store_url: str, tmp_path: Path, armed: str, left: set[str]
) -> None:
    """An armed point kills with signal 9, before or after the commit, of one tool if named."""
    file = tmp_path / "crash"
    file.write_text(armed)

    done = subprocess.run([sys.executable, "-c", DIE_AT, store_url, str(file)], check=False)

    assert (-9, False) == (done.returncode, file.exists())
    assert left == roles(db)


DIE_TOGETHER = (
    DIE_AT[: DIE_AT.index("for tool")]
    + """
def write(tool):
    row = {"role": tool, "executor_id": "w", "lease_end_us": 1}
    return lambda tx: tx.connection.execute(insert(leader).values(row)) and None

db.run_together([Work(name="test.write", fn=write(tool), tool=tool) for tool in ("a", "b")])
"""
)


@pytest.mark.parametrize(
    ("armed", "left"),
    [("test.write.before b", set()), ("test.write.after a", {"a", "b"})],
)
def test_what_runs_together_commits_together(
    migrated_sqlite_url: str, tmp_path: Path, armed: str, left: set[str]
) -> None:
    """A process that dies before the one commit leaves nothing, one that dies after it all."""
    file = tmp_path / "crash"
    file.write_text(armed)
    code = DIE_TOGETHER.replace("CrashPoints, Database", "CrashPoints, Database, Work")

    done = subprocess.run([sys.executable, "-c", code, migrated_sqlite_url, str(file)], check=False)

    assert -9 == done.returncode
    db = Database(migrated_sqlite_url)
    assert left == roles(db)
    db.close()


def test_what_runs_together_fails_each_for_itself(db: Database) -> None:
    """One that raises is rolled back alone, and its error is told to whoever gave it."""

    def fail(tx: Tx) -> None:
        write(tx, "lost")
        raise InputError("no")

    works = [
        Work(name="test.write", fn=lambda tx: write(tx, "one")),
        Work(name="test.write", fn=fail),
        Work(name="test.write", fn=lambda tx: write(tx, "two")),
    ]
    first, second, third = db.run_together(works)

    assert ("one", "two") == (first.result, third.result)
    assert isinstance(second.error, InputError)
    assert {"one", "two"} == roles(db)


def test_trouble_of_the_machine_lets_each_run_for_itself(db: Database) -> None:
    """What cannot be committed with others is tried again alone until it can be."""
    tries: list[str] = []

    def stumble(tx: Tx) -> str:
        tries.append("try")
        if len(tries) == 1:
            raise UnavailableError("the disk is full")
        return write(tx, "late")

    done = db.run_together(
        [
            Work(name="test.write", fn=lambda tx: write(tx, "one")),
            Work(name="test.write", fn=stumble),
        ]
    )

    assert ["one", "late"] == [how.result for how in done]
    assert {"one", "late"} == roles(db)


def test_nobody_is_told_of_a_commit_that_the_database_gave_up(
    migrated_sqlite_url: str,
) -> None:
    """When SQLite rolls all back by itself, as on a full disk, each is tried again for itself."""
    db, tries = Database(migrated_sqlite_url), []

    def give_up_once(tx: Tx) -> str:
        tries.append("try")
        if len(tries) == 1:
            tx.connection.exec_driver_sql("ROLLBACK")
            raise InputError("no")
        return write(tx, "late")

    done = db.run_together(
        [
            Work(name="test.write", fn=lambda tx: write(tx, "one")),
            Work(name="test.write", fn=give_up_once),
        ]
    )

    assert ["one", "late"] == [how.result for how in done]
    assert {"one", "late"} == roles(db)
    db.close()


def test_what_is_left_for_later_comes_before_the_next_statement(db: Database) -> None:
    """Whoever reads in the same transaction sees it, however the statement is run."""
    values = {"role": "sweep", "executor_id": "w", "lease_end_us": 1}

    with db.transaction("test.write") as tx:
        tx.insert(leader, values)
        by_connection = tx.connection.execute(select(leader.c.role)).scalars().all()
        tx.upsert(leader, values | {"lease_end_us": 2})
        (row,) = tx.rows(LEADERS, {})

    assert (["sweep"], 2) == (by_connection, row["lease_end_us"])


def test_what_is_left_for_later_can_refuse_the_transaction(db: Database) -> None:
    """A row that must be new and is not raises what the caller gave, and nothing is committed."""
    values = {"role": "sweep", "executor_id": "w", "lease_end_us": 1}
    db.run("test.write", write)

    def insert_again(tx: Tx) -> None:
        write(tx, "other")
        tx.insert_new(leader, values, unless=lambda: InputError("it is there"))

    with pytest.raises(InputError, match="it is there"):
        db.run("test.write", insert_again)

    assert {"sweep"} == roles(db)


def test_a_broken_constraint_later_is_the_same_error_as_at_once(db: Database) -> None:
    """Statements of the road raise what all statements raise."""
    values = {"role": "sweep", "executor_id": "w", "lease_end_us": 1}
    db.run("test.write", write)

    with pytest.raises(IntegrityError) as caught:
        db.run("test.write", lambda tx: tx.insert(leader, values))

    assert "sweep" not in str(caught.value).replace("DETAIL", "").partition("Key (role)")[0]


def test_statements_of_the_road_return_what_others_return(db: Database) -> None:
    """Booleans are booleans and nulls are nulls, on both databases."""
    query = select(
        true().label("yes"), false().label("no"), null().label("none"), literal("x").label("text")
    )

    with db.reading() as tx:
        (row,) = tx.rows(Statement(query), {})
        (same,) = tx.connection.execute(query).mappings().all()

    assert dict(same) == dict(row)
    assert (True, False) == (row["yes"], row["no"])
    assert isinstance(row["yes"], bool)


def test_points_that_are_not_armed_do_nothing(tmp_path: Path) -> None:
    """Without a file, without the file's content, or armed elsewhere, a point is passed."""
    file = tmp_path / "crash"
    CrashPoints().reach("test.write.before")
    CrashPoints(file).reach("test.write.before")
    file.write_text("test.write.before a\n")

    CrashPoints(file).reach("test.write.after", tool="a")
    CrashPoints(file).reach("test.write.before", tool="b")

    assert file.exists()


def test_writers_wait_for_one_another(db: Database) -> None:
    """Two threads that read and then write the same row both count: none is lost or refused."""
    db.run("test.write", write)
    together = threading.Barrier(2, timeout=30)

    def add(tx: Tx) -> None:
        query = select(leader.c.lease_end_us).with_for_update()
        count = tx.connection.execute(query).scalar_one()
        tx.connection.execute(leader.update().values(lease_end_us=count + 1))

    def work() -> None:
        together.wait()
        for _ in range(20):
            db.run("test.add", add)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with db.reading() as tx:
        assert 41 == tx.connection.execute(select(leader.c.lease_end_us)).scalar_one()


def test_lost_connection_is_retried(migrated_postgres_url: str) -> None:
    """A connection that breaks in the middle is no error of the caller: the body runs again."""
    db = Database(migrated_postgres_url)
    tries: list[int] = []

    def die_once(tx: Tx) -> None:
        write(tx)
        tries.append(1)
        if len(tries) == 1:
            tx.connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    db.run("test.write", die_once)

    assert (2, {"sweep"}) == (len(tries), roles(db))
    db.close()


def test_commit_whose_answer_was_lost_takes_effect_once(migrated_postgres_url: str) -> None:
    """If the connection breaks during COMMIT, Postgres is asked whether it happened."""
    with CommitEater(migrated_postgres_url) as proxy:
        db = Database(proxy.url)
        tries: list[int] = []

        def count(tx: Tx) -> int:
            write(tx, f"try-{len(tries)}")
            tries.append(1)
            # Goes in one batch with COMMIT.
            tx.insert(leader, {"role": "later", "executor_id": "w", "lease_end_us": 1})
            proxy.eat_next_answer()
            return len(tries)

        result = db.run("test.write", count)

        assert (True, 1, {"try-0", "later"}) == (proxy.has_eaten, result, roles(db))
        db.close()


def test_client_that_stands_still_within_a_transaction_holds_nobody_up(
    migrated_postgres_url: str,
) -> None:
    """The server ends it after a while, frees its locks, and nothing of it is written."""
    lost, other = Database(migrated_postgres_url), Database(migrated_postgres_url)
    with lost.reading() as tx:
        patience = [
            tx.connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "tcp_user_timeout")
        ]

    def stand_still() -> None:
        with lost.transaction("test.lost") as tx:
            write(tx)
            tx.connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '1ms'"))
            other.run("test.other", write)

    with pytest.raises(UnavailableError):
        stand_still()

    assert (["3s", "5000"], {"sweep"}) == (patience, roles(other))
    lost.close()
    other.close()


def test_statement_errors_are_not_retried(db: Database) -> None:
    """A statement that is wrong is a bug: it comes out at once and is not called unavailable."""
    with pytest.raises(DBAPIError), db.transaction("test.bug") as tx:
        tx.connection.execute(text("SELECT * FROM no_such_table"))


def test_unreachable_database_is_unavailable(tmp_path: Path) -> None:
    """A database that cannot be opened is an infrastructure error."""
    db = Database(f"sqlite:///{tmp_path / 'nowhere' / 'store.db'}")

    with pytest.raises(UnavailableError, match="not available"), db.reading():
        pass


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    """Only SQLite files and Postgres are supported."""
    with pytest.raises(InputError, match="not usable"):
        Database(url)


def test_plain_postgres_urls_are_understood() -> None:
    """The usual forms of a Postgres URL need no driver name."""
    drivers = {
        make_url(Database(f"{scheme}://u:p@localhost/db").url).drivername
        for scheme in ("postgres", "postgresql", "postgresql+psycopg")
    }

    assert {"postgresql+psycopg"} == drivers


def test_migration_makes_the_schema_of_the_code(database_url: str) -> None:
    """An empty database is not current; after `upgrade` it is, and has every table."""
    db = Database(database_url)
    before = migrate.is_current(db)

    migrate.upgrade(db)
    migrate.upgrade(db)

    assert (False, True) == (before, migrate.is_current(db))
    with db.reading() as tx:
        for table in metadata.sorted_tables:
            tx.connection.execute(select(table)).all()
    db.close()


def test_processes_may_migrate_at_once(database_url: str) -> None:
    """Three processes that start together on an empty database all succeed."""
    code = (
        "import sys; from interlock.store import migrate; from interlock.store.engine import"
        " Database; migrate.upgrade(Database(sys.argv[1]))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, database_url]) for _ in range(3)]

    assert [0, 0, 0] == [process.wait(50) for process in started]


def test_an_error_of_the_database_repeats_nothing_of_a_row(db: Database) -> None:
    """What was to be written is content, and messages of errors get into logs."""
    statement = text("INSERT INTO no_such_table VALUES (:value)")

    with pytest.raises(DBAPIError) as caught:
        db.run("test.write", lambda tx: tx.connection.execute(statement, {"value": "hunter2"}))

    assert "no_such_table" in str(caught.value)
    assert "hunter2" not in str(caught.value)
