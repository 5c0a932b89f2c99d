"""Brings a database to the newest schema, and tells whether it is there.

Migrations only add until the next minor release: old code must run on the new schema.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from interlock.store.engine import Database
from interlock.store.tx import Tx

_FOLDER = Path(__file__).parent / "migrations"
# Any constant does; it is the two halves of "interlock" in ASCII, so that it is recognised.
_POSTGRES_LOCK = 0x696E7465726C6F63


def upgrade(db: Database) -> None:
    """Apply all missing migrations in one transaction; harmless if there are none.

    Processes that start at once wait for one another: the second finds nothing left to do.
    """
    with db.transaction("migrate") as tx:
        if tx.dialect == "postgresql":
            # A migration lasts as long as it lasts, and so does waiting for one.
            for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):
                tx.connection.execute(text(f"SET LOCAL {limit} = 0"))
            tx.connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRES_LOCK}
            )
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "head")


def is_current(db: Database) -> bool:
    """Return whether the database has exactly the schema of this version of the code."""
    with db.reading() as tx:
        return _revision(tx) == ScriptDirectory(str(_FOLDER)).get_current_head()


def _revision(tx: Tx) -> str | None:
    return MigrationContext.configure(tx.connection).get_current_revision()
