from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from scripts import postgres

SCRIPT = Path(postgres.__file__)


def _connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain)


def test_copy_of_a_database_has_its_rows_and_a_life_of_its_own(
    postgres_server: postgres.Server, postgres_url: str
) -> None:
    """A database made from a template starts with its rows and changes alone."""
    with _connect(postgres_url) as connection:
        connection.execute("CREATE TABLE noun AS SELECT 'run' AS name")

    copy = postgres_server.create_database(template=postgres_url)
    with _connect(copy) as connection:
        connection.execute("INSERT INTO noun VALUES ('effect')")
        copied = connection.execute("SELECT name FROM noun ORDER BY name").fetchall()
    with _connect(postgres_url) as connection:
        original = connection.execute("SELECT name FROM noun").fetchall()
    postgres_server.drop_database(copy)

    assert [("effect",), ("run",)] == copied
    assert [("run",)] == original


def test_writes_are_synced_as_in_production(postgres_url: str) -> None:
    """No setting that trades durability for speed is on."""
    query = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"

    with _connect(postgres_url) as connection:
        settings = connection.execute(query).fetchone()

    assert ("on", "on") == settings


def test_server_ends_when_its_owner_is_killed() -> None:
    """The keeper sees the end of its input, stops the server and removes its folder."""
    program = (
        "import os; from scripts import postgres\n"
        "with postgres.running_server() as server:\n"
        "    print(server.url.render_as_string(hide_password=False), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )

    # The keeper shares our end of the pipe for errors: its end is the end of this call.
    killed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=SCRIPT.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert -9 == killed.returncode
    with pytest.raises(psycopg.OperationalError):
        _connect(killed.stdout.strip())


def test_command_gets_a_database_and_its_exit_code_is_passed_on() -> None:
    """`postgres.py -- COMMAND` sets the URL for the command and ends with its code."""
    command = ["sh", "-c", "echo $INTERLOCK_DATABASE_URL; exit 7"]

    done = subprocess.run(
        [sys.executable, SCRIPT, "--", *command], capture_output=True, text=True, check=False
    )

    assert 7 == done.returncode
    assert done.stdout.startswith("postgresql+psycopg://")
