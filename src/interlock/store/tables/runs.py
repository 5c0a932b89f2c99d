"""Tables of runs: what starts them, their journals, what they wait for and who runs them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from interlock.store.tables.naming import metadata

release = Table(
    "release",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("applied_us", BigInteger, nullable=False),
    Column("applied_by", Text, nullable=False),
    Column("asked_by", Text),
)

release_ask = Table(
    "release_ask",
    metadata,
    Column("diff", Text, primary_key=True),
    Column("asked_us", BigInteger, nullable=False),
    Column("asked_by", Text, nullable=False),
)

trigger_event = Table(
    "trigger_event",
    metadata,
    Column("source", Text, primary_key=True),
    Column("dedupe_key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("body_digest", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

schedule = Table(
    "schedule",
    metadata,
    Column("workflow", Text, primary_key=True),
    Column("trigger", Text, primary_key=True),
    Column("is_paused", Boolean, nullable=False),
    Column("last_tick_us", BigInteger),
)

run = Table(
    "run",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("root_id", Text, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("department", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("workflow_version", Integer, nullable=False),
    Column("release", Integer, nullable=False),
    Column("environment", Text, nullable=False),
    Column("trigger_kind", Text, nullable=False),
    Column("trigger_source", Text, nullable=False),
    Column("trigger_key", Text, nullable=False),
    Column("agent", Text),
    Column("seats", Text, nullable=False),
    Column("deciding", Text, nullable=False),
    Column("user", Text),
    Column("input", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("epoch", Integer, nullable=False),
    Column("segment", Integer, nullable=False),
    Column("executor_id", Text),
    Column("recoveries", Integer, nullable=False),
    Column("lost_us", BigInteger),
    Column("priority", Integer, nullable=False),
    Column("labels", Text, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    Column("is_pause_requested", Boolean, nullable=False),
    Column("end_state", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("output", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("deadline_us", BigInteger),
    Column("is_deleting", Boolean),
    Index("ix_run_created", "tenant", "created_us"),
    Index("ix_run_workflow", "tenant", "workflow", "created_us"),
    Index("ix_run_parent", "parent_id"),
    Index("ix_run_root", "root_id"),
    Index(
        "ix_run_ended",
        "ended_us",
        sqlite_where=text("parent_id IS NULL"),
        postgresql_where=text("parent_id IS NULL"),
    ),
    Index(
        "ix_run_live",
        "state",
        "created_us",
        sqlite_where=text("ended_us IS NULL"),
        postgresql_where=text("ended_us IS NULL"),
    ),
)


def _journal(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("run_id", Text, ForeignKey("run.run_id"), primary_key=True),
        Column("name", Text, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("value", Text),
        Column("error", Text),
        Column("input_digest", Text),
        Column("epoch", Integer, nullable=False),
        Column("at_us", BigInteger, nullable=False),
    )


step, step_past = _journal("step"), _journal("step_past")
"""Rows of `step` that whoever owns the run next need not read."""

FOR_BREAKER = text("substr(topic, 1, 8) = 'breaker/'")
"""Which waits are for a server to work again: few, and found without looking at all others."""

wait = Table(
    "wait",
    metadata,
    Column("run_id", Text, ForeignKey("run.run_id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("due_us", BigInteger),
    Column("opened_us", BigInteger, nullable=False),
    Index("ix_wait_due", "due_us"),
    Index("ix_wait_breaker", "topic", sqlite_where=FOR_BREAKER, postgresql_where=FOR_BREAKER),
)

signal = Table(
    "signal",
    metadata,
    Column("signal_id", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("run.run_id"), nullable=False),
    Column("topic", Text, nullable=False),
    Column("dedupe_key", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("consumed_by", Text),
    UniqueConstraint("run_id", "dedupe_key"),
    Index("ix_signal_topic", "run_id", "topic", "signal_id"),
)

gate_hold = Table(
    "gate_hold",
    metadata,
    Column("key", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("run.run_id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("is_kept", Boolean, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Index("ix_gate_hold_run", "run_id"),
)

gate_wait = Table(
    "gate_wait",
    metadata,
    Column("key", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("run.run_id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("places", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("is_kept", Boolean, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Index("ix_gate_wait_run", "run_id"),
)

gate_turn = Table(
    "gate_turn",
    metadata,
    Column("key", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("turn", BigInteger, nullable=False),
)

executor = Table(
    "executor",
    metadata,
    Column("executor_id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Text, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("lease_end_us", BigInteger, nullable=False),
    Column("is_draining", Boolean, nullable=False),
    Column("release_format", Integer, nullable=False),
    Column("functions", Text, nullable=False),
)

leader = Table(
    "leader",
    metadata,
    Column("role", Text, primary_key=True),
    Column("executor_id", Text, nullable=False),
    Column("lease_end_us", BigInteger, nullable=False),
)

blackboard = Table(
    "blackboard",
    metadata,
    Column("root_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("value", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
