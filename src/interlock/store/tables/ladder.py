"""Tables of the autonomy ladder: each change of a level, and what people said of writes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from interlock.store.tables.naming import metadata

autonomy_step = Table(
    "autonomy_step",
    metadata,
    Column("step_id", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("release", Integer, nullable=False),
    Column("before", Integer, nullable=False),
    Column("after", Integer, nullable=False),
    Column("by", Text, nullable=False),
    Column("confirmed_by", Text),
    Column("reason", Text, nullable=False),
    Column("evidence", Text),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_autonomy_step_of", "workflow", "environment", "at_us"),
)

autonomy_ask = Table(
    "autonomy_ask",
    metadata,
    Column("workflow", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("level", Integer, nullable=False),
    Column("versions", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

review = Table(
    "review",
    metadata,
    Column("effect_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False, index=True),
    Column("is_agreed", Boolean, nullable=False),
    Column("note", Text),
    Column("by", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
