"""What the recording tool server keeps: each request received, each effect applied, and its items.

Everything is in one SQLite file of its own and on disk before an answer is sent, so the record
outlives kills of either side.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from interlock.domain.canonical import JsonObject, digest

SCHEMA = """
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    header_hash TEXT NOT NULL, key TEXT, reference TEXT, body_hash TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS effect (
    id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, request_id INTEGER NOT NULL,
    tool TEXT NOT NULL, item_id INTEGER NOT NULL, key TEXT, reference TEXT,
    body_hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY, tool TEXT NOT NULL, version INTEGER NOT NULL, reference TEXT,
    body TEXT NOT NULL, visible_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS used_key (
    tool TEXT, key TEXT, at_us INTEGER NOT NULL, body_hash TEXT NOT NULL, item_id INTEGER NOT NULL,
    PRIMARY KEY (tool, key));
CREATE TABLE IF NOT EXISTS link (secret TEXT PRIMARY KEY, is_used INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request to a tool, logged before anything is done about it."""

    id: int
    at_us: int
    method: str
    path: str
    header_hash: str
    key: str | None
    """The `Idempotency-Key` header."""
    reference: str | None
    """`reference` of the body, or of the query."""
    body_hash: str | None
    """Digest of the body's canonical form; None without a JSON body."""
    body: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedEffect:
    """One change of the outside world, and the request that made it."""

    id: int
    at_us: int
    request_id: int
    tool: str
    item_id: int
    key: str | None
    reference: str | None
    body_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All requests and all effects so far, in their order."""

    requests: tuple[ReceivedRequest, ...]
    effects: tuple[AppliedEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something stored by an effect; its version rises with each change."""

    id: int
    version: int
    reference: str | None
    body: JsonObject


class KeyReusedError(Exception):
    """An idempotency key came again with another body."""


class LinkSpentError(Exception):
    """A one-time link was used before, or never given out."""


class VersionError(Exception):
    """The version that the caller expects is not the item's."""


class Recording:
    """The record; safe for several threads. Each method is one durable transaction."""

    def __init__(self, path: Path, *, key_ttl_s: float, lag_s: float) -> None:
        self._key_ttl_us = int(key_ttl_s * 1e6)
        self._lag_us = int(lag_s * 1e6)
        self._lock = threading.Lock()
        self._grown = threading.Condition()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA)

    def receive(
        self,
        *,
        method: str,
        path: str,
        header_hash: str,
        key: str | None,
        reference: str | None,
        body: str | None,
        body_hash: str | None,
    ) -> ReceivedRequest:
        """Log a request."""
        values = (_now_us(), method, path, header_hash, key, reference, body_hash, body)
        with self._transaction():
            row = self._db.execute(
                "INSERT INTO request (at_us, method, path, header_hash, key, reference, body_hash,"
                " body) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
                values,
            ).fetchone()
        return ReceivedRequest(**row)

    def create(self, request: ReceivedRequest, tool: str, body: JsonObject) -> Item:
        """Store a new item, each time it is asked."""
        with self._transaction():
            return self._create(request, tool, body)

    def create_keyed(self, request: ReceivedRequest, tool: str, body: JsonObject) -> Item:
        """Store a new item, or return the one that the same key stored while the key lives.

        Raises `KeyReusedError` if the key came with another body.
        """
        with self._transaction():
            seen = self._db.execute(
                "SELECT * FROM used_key WHERE tool = ? AND key = ? AND at_us > ?",
                (tool, request.key, request.at_us - self._key_ttl_us),
            ).fetchone()
            if seen is not None:
                if seen["body_hash"] != request.body_hash:
                    raise KeyReusedError
                return self._item(tool, seen["item_id"])
            item = self._create(request, tool, body)
            self._db.execute(
                "INSERT OR REPLACE INTO used_key VALUES (?, ?, ?, ?, ?)",
                (tool, request.key, request.at_us, request.body_hash, item.id),
            )
            return item

    def give_link(self, secret: str) -> None:
        """Store a one-time link."""
        with self._transaction():
            self._db.execute("INSERT INTO link VALUES (?, 0)", (secret,))

    def create_linked(
        self, request: ReceivedRequest, tool: str, body: JsonObject, *, secret: str
    ) -> Item:
        """Use up a one-time link and store a new item; raises `LinkSpentError`."""
        with self._transaction():
            used = self._db.execute(
                "UPDATE link SET is_used = 1 WHERE secret = ? AND is_used = 0", (secret,)
            )
            if used.rowcount == 0:
                raise LinkSpentError
            return self._create(request, tool, body)

    def change(
        self, request: ReceivedRequest, tool: str, body: JsonObject, *, item_id: int, version: int
    ) -> Item | None:
        """Replace an item's body if its version is as expected; None if there is no such item.

        Raises `VersionError` if it has another version.
        """
        with self._transaction():
            if self._find(tool, item_id) is None:
                return None
            changed = self._db.execute(
                "UPDATE item SET body = ?, version = version + 1"
                " WHERE tool = ? AND id = ? AND version = ?",
                (json.dumps(body), tool, item_id, version),
            )
            if changed.rowcount == 0:
                raise VersionError
            self._note_effect(request, tool, item_id, body)
            return self._item(tool, item_id)

    def find(self, tool: str | None, item_id: int) -> Item | None:
        """Return an item of a tool, or of any."""
        with self._lock:
            return self._find(tool, item_id)

    def search(self, tool: str | None, *, reference: str | None) -> list[Item]:
        """Return the items of a tool or of all, with a reference or any, older than the lag."""
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM item WHERE visible_us <= ? AND ifnull(?, tool) = tool"
                " AND (? IS NULL OR reference = ?) ORDER BY id",
                (_now_us(), tool, reference, reference),
            ).fetchall()
        return [_item(row) for row in rows]

    def log(self) -> Record:
        """Return the record."""
        with self._lock:
            requests = self._db.execute("SELECT * FROM request ORDER BY id").fetchall()
            effects = self._db.execute("SELECT * FROM effect ORDER BY id").fetchall()
        return Record(
            requests=tuple(ReceivedRequest(**row) for row in requests),
            effects=tuple(AppliedEffect(**row) for row in effects),
        )

    def wait_until(self, *, requests: int, effects: int, seconds: float) -> bool:
        """Wait until that many are logged; False if they are not after so many seconds."""

        def is_reached() -> bool:
            record = self.log()
            return len(record.requests) >= requests and len(record.effects) >= effects

        with self._grown:
            return self._grown.wait_for(is_reached, timeout=seconds)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        with self._grown:
            self._grown.notify_all()

    def _create(self, request: ReceivedRequest, tool: str, body: JsonObject) -> Item:
        row = self._db.execute(
            "INSERT INTO item (tool, version, reference, body, visible_us)"
            " VALUES (?, 1, ?, ?, ?) RETURNING *",
            (tool, request.reference, json.dumps(body), _now_us() + self._lag_us),
        ).fetchone()
        self._note_effect(request, tool, row["id"], body)
        return _item(row)

    def _note_effect(
        self, request: ReceivedRequest, tool: str, item_id: int, body: JsonObject
    ) -> None:
        self._db.execute(
            "INSERT INTO effect (at_us, request_id, tool, item_id, key, reference, body_hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (_now_us(), request.id, tool, item_id, request.key, request.reference, digest(body)),
        )

    def _find(self, tool: str | None, item_id: int) -> Item | None:
        row = self._db.execute(
            "SELECT * FROM item WHERE ifnull(?, tool) = tool AND id = ?", (tool, item_id)
        ).fetchone()
        return None if row is None else _item(row)

    def _item(self, tool: str, item_id: int) -> Item:
        item = self._find(tool, item_id)
        assert item is not None  # INVARIANT: the id was read in this transaction
        return item


def _item(row: sqlite3.Row) -> Item:
    return Item(
        id=row["id"],
        version=row["version"],
        reference=row["reference"],
        body=json.loads(row["body"]),
    )


def _now_us() -> int:
    return time.time_ns() // 1000
