"""What MCP servers said of their tools, each definition once: what a changed one differs from.

A pin is a digest of its definition, so whichever server was heard saying it, it is the same one.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from interlock.domain.canonical import JsonObject
from interlock.store.columns import pack, unpack_object
from interlock.store.tables.calls import upstream_tool as table
from interlock.store.tx import Tx


def put(tx: Tx, pin: str, definition: JsonObject) -> None:
    """Keep a definition under its pin; nothing happens if it is known."""
    tx.insert_once(table, {"pin": pin, "definition": pack(definition), "seen_us": tx.now_us})


def find(tx: Tx, pins: Collection[str]) -> dict[str, JsonObject]:
    """Return the known definitions by pin."""
    query = select(table.c.pin, table.c.definition).where(table.c.pin.in_(pins))
    return {pin: unpack_object(definition) for pin, definition in tx.connection.execute(query)}
