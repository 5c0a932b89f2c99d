"""Tables of who may come in: keys, tokens and sessions, and of sealed secrets."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, text

from interlock.store.tables.naming import metadata

secret = Table(
    "secret",
    metadata,
    Column("reference", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("until_us", BigInteger),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("workflow", Text),
    Column("agent", Text),
    Column("environment", Text),
    # How often a session of this key has read something with labels that it did not have.
    Column("learned", Integer, nullable=False, server_default=text("0")),
)

run_token = Table(
    "run_token",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("run_id", Text, ForeignKey("run.run_id"), nullable=False),
    Column("key_id", Text, ForeignKey("api_key.key_id"), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    # Up to which of what its key has learned its session was told the labels; none at first.
    Column("learned", Integer),
    Index("ix_run_token_run", "run_id"),
    Index("ix_run_token_key", "key_id", "created_us"),
)

session = Table(
    "session",
    metadata,
    Column("session_hash", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("csrf_token", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
)

sign_in_link = Table(
    "sign_in_link",
    metadata,
    Column("link_hash", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
)
