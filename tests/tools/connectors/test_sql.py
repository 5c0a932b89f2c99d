"""Statements on a real Postgres: what they find comes back exactly, and they do nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import psycopg
import pytest

from interlock.domain.canonical import Json
from interlock.domain.effect import Reply, Transport
from interlock.domain.tool import ConnectorKind, Limits, Server, SqlQuery
from interlock.testing.connectors.outside import outgoing, tool_of
from interlock.tools.addresses import target_of
from interlock.tools.connectors.sql import MOST_OPEN, SqlConnector, conninfo_of

_OTHERS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
PEOPLE = "SELECT id, name FROM person WHERE name = %(name)s ORDER BY id"


class Warehouse:
    """A database with a few people, and a connector of a role that may do anything there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url.replace("postgresql+psycopg:", "postgresql:")
        self.server = Server(
            name="warehouse-dev",
            system="warehouse",
            environment="dev",
            kind="postgres",
            url=f"postgres://127.0.0.1:{parts.port}{parts.path}",
            auth="basic",
        )
        self.secret = f"{parts.username}:{parts.password}"
        self.connector = SqlConnector(self.server)
        self.execute("CREATE TABLE person (id integer, name text)")
        self.execute("INSERT INTO person VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Bob')")

    def execute(self, text: str) -> None:
        """Run a statement as its administrator."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(text.encode())

    def count(self) -> int:
        """Return how many people there are."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT count(*) FROM person").fetchone()
        assert found is not None
        return int(found[0])

    async def ask(
        self,
        statement: str,
        *,
        timeout_s: float = 20.0,
        response_bytes: int = 5000,
        returns: str = "rows",
        secret: str | None = None,
        **given: Json,
    ) -> Reply:
        """Run a statement whose parameters are its arguments."""
        query = SqlQuery(
            statement=statement,
            parameters={name: f"in:/{name}" for name in given},
            returns="row" if returns == "row" else "rows",
        )
        limits = Limits(timeout_s=timeout_s, response_bytes=response_bytes)
        tool = tool_of(ConnectorKind.SQL, query, limits=limits)
        secret = secret or self.secret
        return await self.connector.send(
            outgoing(tool, self.server, given, timeout_s=timeout_s, secret=secret)
        )


@pytest.fixture
async def warehouse(postgres_url: str) -> AsyncIterator[Warehouse]:
    """A warehouse of this test's own."""
    opened = Warehouse(postgres_url)
    yield opened
    await opened.connector.aclose()


async def test_rows_are_found_by_their_columns(warehouse: Warehouse) -> None:
    """Or the only row as it is, and null if there is none."""
    rows = await warehouse.ask(PEOPLE, name="Bob")
    row = await warehouse.ask(PEOPLE, returns="row", name="Ada")
    none = await warehouse.ask(PEOPLE, returns="row", name="Eve")
    several = await warehouse.ask(PEOPLE, returns="row", name="Bob")

    assert {"rows": [{"id": 2, "name": "Bob"}, {"id": 3, "name": "Bob"}]} == rows.body
    assert ({"id": 1, "name": "Ada"}, None) == (row.body, none.body)
    assert (True, "the statement found more than one row") == (several.is_error, several.problem)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.10::numeric", "1.10"),
        ("12345678901234567890.5::numeric", "12345678901234567890.5"),
        ("0.5::float8", 0.5),
        ("true", True),
        ("NULL::text", None),
        ("date '2026-11-22'", "2026-11-22"),
        ("timestamptz '2026-11-22 10:00+00'", "2026-11-22T10:00:00+00:00"),
        ("'{\"a\": [1, null]}'::jsonb", {"a": [1, None]}),
        ("array[1, 2]", [1, 2]),
        ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ("E'a\\tb \\u00fc'", "a\tb ü"),
    ],
)
async def test_values_say_exactly_the_same(
    warehouse: Warehouse, expression: str, expected: Json
) -> None:
    """Exact numbers are text, since a JSON number is read as a float by many."""
    reply = await warehouse.ask(f"SELECT {expression} AS v".replace("%", "%%"), returns="row")

    assert {"v": expected} == reply.body, reply.problem


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'NaN'::float8", "the column `v` has a value without a JSON form"),
        ("'NaN'::numeric", "the column `v` has a value without a JSON form"),
        ("'Infinity'::float8", "the column `v` has a value without a JSON form"),
        ("'\\x00ff'::bytea", "the column `v` has a value without a JSON form"),
        ("interval '1 day'", "the column `v` has a value without a JSON form"),
        ("'infinity'::timestamptz", "timestamp too large"),
        ("9007199254740993", "exceeds safe integer"),
        ("1 AS v, 2", "two columns are called `v`"),
        ("1 / 0", "22012: division by zero"),
        ("v FROM nothing", '42P01: relation "nothing" does not exist'),
    ],
)
async def test_what_has_no_plain_json_is_withheld(
    warehouse: Warehouse, expression: str, said: str
) -> None:
    """The agent hears which column it was; nothing of the result is handed on."""
    reply = await warehouse.ask(f"SELECT {expression} AS v")

    assert (Transport.REPLY, True, None) == (reply.transport, reply.is_error, reply.body)
    assert said in (reply.problem or "")


@pytest.mark.parametrize(
    "name",
    ["'; DELETE FROM person; --", "x' OR '1'='1", "%(name)s", "$1", "\\'; DROP TABLE person"],
)
async def test_an_argument_never_gets_into_the_statement(warehouse: Warehouse, name: str) -> None:
    """It is a value, whatever it looks like."""
    reply = await warehouse.ask(PEOPLE, name=name)

    assert ({"rows": []}, 3) == (reply.body, warehouse.count())


async def test_an_argument_that_no_text_may_have_is_not_sent(warehouse: Warehouse) -> None:
    """Nor is one that is no scalar."""
    bad: list[Json] = ["a\0b", {"a": 1}, [["a"]]]
    replies = [await warehouse.ask(PEOPLE, name=value) for value in bad]

    assert [(Transport.NOT_SENT, True)] * 3 == [(r.transport, r.is_final) for r in replies]


@pytest.mark.parametrize(
    "statement",
    [
        "WITH gone AS (DELETE FROM person RETURNING id) SELECT * FROM gone",
        "SELECT empty_it()",
        "DELETE FROM person",
        "SELECT 1; DELETE FROM person",
        "COMMIT; DELETE FROM person",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "DO $$ BEGIN DELETE FROM person; END $$",
        "SELECT * FROM person FOR UPDATE",
    ],
)
async def test_no_statement_writes(warehouse: Warehouse, statement: str) -> None:
    """Even if it was reviewed badly and its role might: nor can it open the way for the next."""
    warehouse.execute(
        "CREATE FUNCTION empty_it() RETURNS void LANGUAGE sql AS 'DELETE FROM person'"
    )

    await warehouse.ask(statement)
    again = await warehouse.ask("SELECT empty_it()")

    assert 3 == warehouse.count()
    assert "read-only transaction" in (again.problem or "")


async def test_a_large_result_is_given_up_early(warehouse: Warehouse) -> None:
    """Not read until memory is full; the next call is answered."""
    reply = await warehouse.ask("SELECT generate_series(1, 1000000000) AS n", timeout_s=10)
    after = await warehouse.ask("SELECT 1 AS n", returns="row")

    assert (Transport.REPLY, None) == (reply.transport, reply.body)
    assert "the result has more than 5000 bytes" == reply.problem
    assert {"n": 1} == after.body


async def test_a_statement_that_takes_too_long_is_ended_at_the_server(
    warehouse: Warehouse,
) -> None:
    """The server says so before we give up, so nothing goes on there."""
    reply = await warehouse.ask("SELECT pg_sleep(60)", timeout_s=1.0)

    assert Transport.UNKNOWN is reply.transport
    assert "57014" in (reply.problem or "")
    assert [] == _busy(warehouse.url)


async def test_wrong_credentials_are_told_without_them(warehouse: Warehouse) -> None:
    """No fault of the server, and no reason to wait for it."""
    user = warehouse.secret.partition(":")[0]
    wrong = await warehouse.ask("SELECT 1", secret=f"{user}:guessed")
    none = await warehouse.ask("SELECT 1", secret="guessed")

    assert [(Transport.NOT_SENT, False)] * 2 == [
        (reply.transport, reply.is_unreachable) for reply in (wrong, none)
    ]
    assert "the database refused the credentials, or has no such database" == wrong.problem
    assert "guessed" not in f"{wrong.problem} {none.problem}"


async def test_connections_that_the_server_has_closed_are_opened_anew(
    warehouse: Warehouse,
) -> None:
    """At most one call notices, and it was answered by nobody."""
    await warehouse.ask("SELECT 1 AS n")
    _end_all(warehouse.url)

    replies = [await warehouse.ask("SELECT 1 AS n", returns="row") for _ in range(2)]

    assert Transport.UNKNOWN is replies[0].transport or {"n": 1} == replies[0].body
    assert {"n": 1} == replies[1].body


async def test_connections_are_few_and_used_again(warehouse: Warehouse) -> None:
    """However many calls come at once, and come again; none is left behind."""
    are_errors = set[bool]()
    for _ in range(3):
        asked = [warehouse.ask("SELECT pg_sleep(0.01), 1 AS n") for _ in range(20)]
        are_errors |= {reply.is_error for reply in await asyncio.gather(*asked)}

    assert {False} == are_errors
    query = f"SELECT count(*) FROM ({_OTHERS}) AS others"  # noqa: S608
    with psycopg.connect(warehouse.url) as connection:
        (count,) = connection.execute(query.encode()).fetchone() or (0,)
    assert 1 <= count <= MOST_OPEN


async def test_each_credential_has_connections_of_its_own(warehouse: Warehouse) -> None:
    """What one workflow may see is never answered on the connection of another."""
    with suppress(psycopg.errors.DuplicateObject):
        warehouse.execute("CREATE ROLE reader LOGIN PASSWORD 'r3ad'")
    mine = await warehouse.ask("SELECT current_user::text AS u", returns="row")
    theirs = await warehouse.ask(
        "SELECT current_user::text AS u", returns="row", secret="reader:r3ad"
    )
    denied = await warehouse.ask(PEOPLE, name="Ada", secret="reader:r3ad")

    assert ({"u": "postgres"}, {"u": "reader"}) == (mine.body, theirs.body)
    assert "42501: permission denied for table person" == denied.problem


def test_only_a_loopback_address_goes_without_tls() -> None:
    """Elsewhere the name of the server is checked, by the authorities that the machine trusts."""
    local = target_of("postgres://127.0.0.1:5432/x", "dev")
    away = target_of("postgres://warehouse.example.com/x", "dev")

    assert "sslmode=prefer" in conninfo_of(local, "127.0.0.1", user="a", password="b")
    told = conninfo_of(away, "203.0.113.9", user="a", password="b")
    assert "sslmode=verify-full sslrootcert=system" in told
    assert "host=warehouse.example.com hostaddr=203.0.113.9 port=5432" in told


def _busy(url: str) -> list[str]:
    query = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
    with psycopg.connect(url) as connection:
        return [
            str(row[0]) for row in connection.execute(query.encode()) if "pg_sleep" in str(row[0])
        ]


def _end_all(url: str) -> None:
    query = f"SELECT pg_terminate_backend(pid) FROM ({_OTHERS}) AS others"  # noqa: S608
    with psycopg.connect(url) as connection:
        connection.execute(query.encode())
