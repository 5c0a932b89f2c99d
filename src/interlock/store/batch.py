"""Statements for Postgres in one message each way: prepared once, sent and answered by libpq.

psycopg's own pipeline does the same; each statement takes it five times as long in this process.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import DivisionByZero, InvalidSqlStatementName, error_from_result

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.abc import Transformer as AnyTransformer

_STATUS, _TEXT, _BINARY = pq.ExecStatus, PyFormat.TEXT, PyFormat.BINARY
_PREFIX = "interlock_"
_PREPARED = f"SELECT name FROM pg_prepared_statements WHERE starts_with(name, '{_PREFIX}')"  # noqa: S608


class Query(NamedTuple):
    """A statement whose parameters are `$1`, `$2`...; `name` is that of its prepared form.

    It follows from the text, so that nothing else ever goes by it, whoever prepared it.
    """

    name: bytes
    sql: bytes


class Ask(NamedTuple):
    """A statement to run with its values, which are sent beside the text.

    What `unless` returns is raised if the statement is one of `must_change` and changes nothing.
    """

    query: Query
    values: Sequence[object] = ()
    unless: Callable[[], Exception] | None = None


Rows: TypeAlias = "list[tuple[Any, ...]]"


@dataclass(slots=True)
class Prepared:
    """What the server of one connection has prepared; None if it has to be asked.

    Which it has after a rollback: psycopg then lets it forget all if it had prepared something too.
    """

    names: set[bytes] | None = None
    adapted: AnyTransformer | None = None
    """How values and rows of the connection are converted, found out once."""

    def known(self, connection: psycopg.Connection) -> set[bytes]:
        """Return what is prepared; asks the server if it has to, outside of any transaction."""
        if self.names is None:
            told = connection.pgconn.exec_(_PREPARED.encode())
            if told.status != _STATUS.TUPLES_OK:
                raise error_from_result(told)
            rows = range(told.ntuples)
            self.names = {name for row in rows if (name := told.get_value(row, 0)) is not None}
        return self.names


def query(sql: str) -> Query:
    """Return a statement with the name that only this text has."""
    text = sql.encode()
    return Query(name=f"{_PREFIX}{sha256(text).hexdigest()[:32]}".encode(), sql=text)


def must_change(sql: str) -> Query:
    """Return a statement that returns what it changes as one that fails if that is nothing.

    On the server, so that nothing that was sent after it happens, not even a commit.
    """
    return query(f"WITH changed AS ({sql}) SELECT 1 / count(*) FROM changed")  # noqa: S608


def exchange(
    connection: psycopg.Connection, prepared: Prepared, asked: Sequence[Ask]
) -> list[Rows]:
    """Run statements in order and return the rows of each.

    The error of the first that fails is raised, and none after it is run.

    Args:
        connection: one that nobody else uses meanwhile; closed if it is not known how far it came.
        prepared: what its server knows; what it learns is added.
        asked: the statements.
    """
    if prepared.adapted is None:
        prepared.adapted = Transformer(connection)
    adapted = prepared.adapted
    values = [_values(adapted, each.values) for each in asked]
    known = prepared.known(connection)
    server = connection.pgconn
    learnt: list[bytes | None] = []
    try:
        server.enter_pipeline_mode()
        for ((name, sql), _, _), (dumped, formats) in zip(asked, values, strict=True):
            if name not in known and name not in learnt:
                server.send_prepare(name, sql)
                learnt.append(name)
            server.send_query_prepared(name, dumped, formats)
            learnt.append(None)
        server.pipeline_sync()
        results, failed = _answers(server)
        server.exit_pipeline_mode()
    except BaseException:
        connection.close()
        raise
    done = list(zip(learnt, results, strict=failed is None))
    known.update(name for name, _ in done if name is not None)
    if failed is not None:
        raise _error(failed, prepared, asked[sum(name is None for name, _ in done) :])
    ours = [result for name, result in done if name is None]
    return [_rows(adapted, ask, result) for ask, result in zip(asked, ours, strict=True)]


def _values(
    adapted: AnyTransformer, bound: Sequence[object]
) -> tuple[Sequence[Buffer | None], Sequence[pq.Format] | None]:
    """Return values as they are sent, and the format of each.

    Text suits whatever the server takes a parameter for: in binary a 5 has several sizes.
    """
    formats = [_BINARY if isinstance(value, bytes) else _TEXT for value in bound]
    return adapted.dump_sequence(bound, formats), adapted.formats


def _answers(server: pq.abc.PGconn) -> tuple[list[pq.abc.PGresult], pq.abc.PGresult | None]:
    """Send what is left, and return what came back up to the first failure, and that."""
    ready = select.poll()
    ready.register(server.socket, select.POLLIN | select.POLLOUT)
    while server.flush():
        if any(events & ~select.POLLOUT for _, events in ready.poll()):
            # Else neither side could go on once both have filled what is between them.
            server.consume_input()
    ready.modify(server.socket, select.POLLIN)
    done: list[pq.abc.PGresult] = []
    failed: pq.abc.PGresult | None = None
    while True:
        while server.is_busy():
            ready.poll()
            server.consume_input()
        result = server.get_result()
        if result is None:
            if server.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection to the server is lost")
        elif result.status == _STATUS.PIPELINE_SYNC:
            return done, failed
        elif result.status in (_STATUS.COMMAND_OK, _STATUS.TUPLES_OK):
            done.append(result)
        elif failed is None:
            failed = result


def _error(failed: pq.abc.PGresult, prepared: Prepared, asked: Sequence[Ask]) -> Exception:
    """Return what to raise; the first of `asked` has failed."""
    error = error_from_result(failed)
    unless = asked[0].unless
    if unless is not None and isinstance(error, DivisionByZero):
        return unless()
    if isinstance(error, InvalidSqlStatementName):
        # Somebody has told the server to forget. Whoever tries again asks it.
        prepared.names = None
        return psycopg.OperationalError("the server has forgotten the prepared statements")
    return error


def _rows(adapted: AnyTransformer, ask: Ask, result: pq.abc.PGresult) -> Rows:
    if not result.ntuples or ask.unless is not None:
        return []
    adapted.set_pgresult(result)
    return adapted.load_rows(0, result.ntuples, tuple)
