"""Statements of the road, compiled once and run without a layer in between.

A call takes about twenty statements. Building one, looking it up by its parts and wrapping its
result costs more than running it; so these are built when the module is loaded, compiled once for
each database, and run by the driver. Everything else uses connections as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ClauseElement, Dialect, RowMapping
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.sql.compiler import SQLCompiler

from interlock.store import batch

_NUMBERED: Dialect = psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

Row = Mapping[str, Any] | RowMapping
"""A row by the names of its columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A statement as one database takes it."""

    sql: str
    query: batch.Query
    strict: batch.Query
    """The same for one that fails if it changes nothing; only for what returns what it changes."""
    names: tuple[str, ...]
    """The order of the parameters."""
    constants: Mapping[str, object]
    columns: tuple[str, ...]
    flags: tuple[int, ...]
    """Which columns are booleans that the database has as integers."""

    def bind(self, values: Mapping[str, object]) -> Sequence[object]:
        """Return the values in the order of the parameters."""
        merged = {**self.constants, **values} if self.constants else values
        return tuple([merged[name] for name in self.names])

    def row(self, found: Sequence[object]) -> Row:
        """Return what the database found, by the names of the columns."""
        row = dict(zip(self.columns, found, strict=True))
        for index in self.flags:
            name = self.columns[index]
            row[name] = None if row[name] is None else bool(row[name])
        return row


class Statement:
    """A statement with named parameters; `columns` are those that an insert gives values for."""

    def __init__(self, made: ClauseElement, *columns: str) -> None:
        self._made = made
        self._columns = columns
        self._compiled: dict[str, Compiled] = {}

    def on(self, dialect: Dialect) -> Compiled:
        """Return the text for one database."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> Compiled:
        if dialect.name == "postgresql":
            dialect = _NUMBERED
        compiled = self._made.compile(dialect=dialect, column_keys=list(self._columns) or None)
        # INVARIANT: a statement with parameters by position.
        assert isinstance(compiled, SQLCompiler)
        assert compiled.positiontup is not None
        results = list(compiled._result_columns)  # noqa: SLF001  # no public name says as much
        is_boolean = [isinstance(column.type, Boolean) for column in results]
        has_integers = not dialect.supports_native_boolean
        return Compiled(
            sql=str(compiled),
            query=batch.query(str(compiled)),
            strict=batch.must_change(str(compiled)),
            names=tuple(compiled.positiontup),
            constants={
                name: bound.value for name, bound in compiled.binds.items() if not bound.required
            },
            columns=tuple(column.keyname for column in results),
            flags=tuple(i for i, each in enumerate(is_boolean) if each and has_integers),
        )
