"""Tables of what is only looked at: spans, costs, bodies and results of suites."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from interlock.store.tables.naming import metadata

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

eval_result = Table(
    "eval_result",
    metadata,
    Column("result_id", Text, primary_key=True),
    Column("suite", Text, nullable=False),
    Column("suite_digest", Text, nullable=False),
    Column("release", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("versions", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_eval_result_suite", "suite", "at_us"),
    Index("ix_eval_result_workflow", "workflow", "at_us"),
)
