"""Statements of the road, compiled once and run without a layer in between.

A call takes about twenty statements. Building one, looking it up by its parts and wrapping its
result costs more than running it; so these are built when the module is loaded, compiled once for
each database, and run on the driver's own cursor. Everything else uses connections as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ClauseElement, Dialect, RowMapping
from sqlalchemy.sql.compiler import SQLCompiler

Row = Mapping[str, Any] | RowMapping
"""A row by the names of its columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    sql: str
    names: tuple[str, ...] | None
    """The order of the parameters, None if they go by their names."""
    constants: Mapping[str, object]
    columns: tuple[str, ...]
    flags: tuple[int, ...]
    """Which columns are booleans that the database has as integers."""

    def bind(self, values: Mapping[str, object]) -> Sequence[object] | Mapping[str, object]:
        merged = {**self.constants, **values}
        return merged if self.names is None else tuple([merged[name] for name in self.names])

    def row(self, found: Sequence[object]) -> Row:
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
        self._compiled: dict[str, _Compiled] = {}

    def on(self, dialect: Dialect) -> _Compiled:
        """Return the text for one database."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled = self._made.compile(dialect=dialect, column_keys=list(self._columns) or None)
        assert isinstance(compiled, SQLCompiler)
        results = list(compiled._result_columns)  # noqa: SLF001  # no public name says as much
        is_boolean = [isinstance(column.type, Boolean) for column in results]
        has_integers = not dialect.supports_native_boolean
        return _Compiled(
            sql=str(compiled),
            names=tuple(compiled.positiontup) if compiled.positiontup is not None else None,
            constants={
                name: bound.value for name, bound in compiled.binds.items() if not bound.required
            },
            columns=tuple(column.keyname for column in results),
            flags=tuple(i for i, each in enumerate(is_boolean) if each and has_integers),
        )
