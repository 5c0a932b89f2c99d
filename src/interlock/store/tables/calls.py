"""Tables of calls: decisions, approvals, effects, and what is counted and stopped."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from interlock.store.tables.naming import metadata

rate = Table(
    "rate",
    metadata,
    Column("key", Text, primary_key=True),
    Column("full_us", BigInteger, nullable=False),
    Column("turn_us", BigInteger, nullable=False),
)

budget_window = Table(
    "budget_window",
    metadata,
    Column("budget", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
)

budget_hold = Table(
    "budget_hold",
    metadata,
    Column("holder", Text, primary_key=True),
    Column("budget", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False, index=True),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=False),
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
    Column("observed", Text),
    Column("policy_version", Text, nullable=False),
    Column("slice_version", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_decision_run", "run_id", "at_us"),
    Index("ix_decision_at", "at_us", "decision_id"),
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
    Column("is_held", Boolean, nullable=False),
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

upstream_tool = Table(
    "upstream_tool",
    metadata,
    Column("pin", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
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
