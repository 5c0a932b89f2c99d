"""The tables, as SQLAlchemy Core metadata; migrations create them, nothing else does.

Times are integer microseconds (UTC). JSON columns hold canonical JSON text. Ids are text.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

release = Table(
    "release",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("applied_us", BigInteger, nullable=False),
    Column("applied_by", Text, nullable=False),
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

rate = Table(
    "rate",
    metadata,
    Column("key", Text, primary_key=True),
    Column("full_us", BigInteger, nullable=False),
    Column("turn_us", BigInteger, nullable=False),
)

breaker = Table(
    "breaker",
    metadata,
    Column("server", Text, primary_key=True),
    Column("opened_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("openings", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("probe", Text),
    Column("probe_until_us", BigInteger),
    Column("turn_us", BigInteger, nullable=False),
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

decision = Table(
    "decision",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("effect_id", Text),
    Column("seats", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("tool_version", Integer),
    Column("outcome", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("policy_ids", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("slice_version", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_decision_run", "run_id", "at_us"),
    Index("ix_decision_tool", "tool", "at_us"),
    Index("ix_decision_effect", "effect_id", "at_us"),
)

approval = Table(
    "approval",
    metadata,
    Column("approval_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("effect_id", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("grp", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requester", Text),
    Column("sponsors", Text, nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("answered_us", BigInteger),
    Column("answered_by", Text),
    Column("answer_reason", Text),
    Column("plan", Text),
    Index("ix_approval_effect", "effect_id"),
    Index(
        "ix_approval_plan",
        "run_id",
        "plan",
        sqlite_where=text("plan IS NOT NULL"),
        postgresql_where=text("plan IS NOT NULL"),
    ),
    Index(
        "ix_approval_open",
        "grp",
        "asked_us",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)

approval_use = Table(
    "approval_use",
    metadata,
    Column("approval_id", Text, primary_key=True),
    Column("effect_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

_LIVE_COMPENSATION = (
    "compensates IS NOT NULL"
    " AND state NOT IN ('denied', 'drafted', 'failed_definite', 'confirmed_absent')"
)
effect = Table(
    "effect",
    metadata,
    Column("effect_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("step_name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("seats", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("tool_version", Integer, nullable=False),
    Column("pin", Text, nullable=False),
    Column("effect_class", Text, nullable=False),
    Column("is_write", Boolean, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("args_digest", Text, nullable=False),
    Column("call_digest", Text),
    Column("key_hash", Text),
    Column("key_text", Text),
    Column("idem_key", Text, nullable=False),
    Column("guard", Text),
    Column("is_in_doubt", Boolean, nullable=False),
    Column("decision_id", Text),
    Column("policy_version", Text),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("first_sent_us", BigInteger),
    Column("send_deadline_us", BigInteger),
    Column("intent_us", BigInteger),
    Column("outcome_us", BigInteger),
    Column("external_id", Text),
    Column("result", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("compensates", Text),
    Column("compensated_by", Text),
    UniqueConstraint("tenant", "tool", "idem_key"),
    Index("ix_effect_run", "run_id", "created_us"),
    Index("ix_effect_created", "tenant", "created_us"),
    Index("ix_effect_key", "tenant", "key_hash", "intent_us"),
    Index(
        "ix_effect_compensates",
        "compensates",
        unique=True,
        sqlite_where=text(_LIVE_COMPENSATION),
        postgresql_where=text(_LIVE_COMPENSATION),
    ),
    Index(
        "ix_effect_open",
        "state",
        "intent_us",
        sqlite_where=text("state IN ('intent', 'ambiguous', 'probing', 'parked')"),
        postgresql_where=text("state IN ('intent', 'ambiguous', 'probing', 'parked')"),
    ),
)

evidence = Table(
    "evidence",
    metadata,
    Column("evidence_id", Text, primary_key=True),
    Column("effect_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_evidence_effect", "effect_id", "evidence_id"),
)

dup = Table(
    "dup",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("tool", Text, primary_key=True),
    Column("key_hash", Text, primary_key=True),
    Column("n", Integer, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Index("ix_dup_recent", "tenant", "last_us"),
)

call_count = Table(
    "call_count",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("tool", Text, primary_key=True),
    Column("minute_us", BigInteger, primary_key=True),
    Column("share", Integer, primary_key=True),
    Column("n", Integer, nullable=False),
)

tally = Table(
    "tally",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("tool", Text, primary_key=True),
    Column("calls", Integer, nullable=False),
    Column("writes", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("not_done", Integer, nullable=False),
)

touch = Table(
    "touch",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("system", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("external_id", Text, primary_key=True),
    Column("at_us", BigInteger, primary_key=True),
    Column("effect_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("after", Text),
    Index("ix_touch_run", "run_id"),
)

span = Table(
    "span",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("parent_key", Text),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger),
    Column("status", Text, nullable=False),
    Column("error_code", Text),
    Column("effect_id", Text),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("attributes", Text, nullable=False),
    Index("ix_span_run", "run_id", "seq"),
)

model_use = Table(
    "model_use",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("span_key", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("is_estimated", Boolean, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

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

upstream_tool = Table(
    "upstream_tool",
    metadata,
    Column("pin", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)

body = Table(
    "body",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("span_key", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("content", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
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

_NOT_LIFTED = text("lifted_us IS NULL")
kill_switch = Table(
    "kill_switch",
    metadata,
    Column("switch_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("set_us", BigInteger, nullable=False),
    Column("lifted_us", BigInteger),
    Column("body", Text, nullable=False),
    Index("ix_kill_switch", "set_us", sqlite_where=_NOT_LIFTED, postgresql_where=_NOT_LIFTED),
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

eval_result = Table(
    "eval_result",
    metadata,
    Column("result_id", Text, primary_key=True),
    Column("suite", Text, nullable=False),
    Column("suite_digest", Text, nullable=False),
    Column("release", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_eval_result_suite", "suite", "at_us"),
)
