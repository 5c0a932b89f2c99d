"""What MCP servers said of their tools, each definition once: what a changed one differs from."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from interlock.domain.canonical import JsonObject
from interlock.store.columns import pack, unpack_object
from interlock.store.tables import upstream_tool as table
from interlock.store.tx import Tx


def put(tx: Tx, server: str, pin: str, definition: JsonObject) -> None:
    """Keep a definition under its pin; nothing happens if it is known."""
    tx.insert_once(
        table,
        {"server": server, "pin": pin, "definition": pack(definition), "seen_us": tx.now_us},
    )


def find(tx: Tx, server: str, pins: Collection[str]) -> dict[str, JsonObject]:
    """Return the known definitions of a server by pin."""
    query = select(table.c.pin, table.c.definition)
    query = query.where(table.c.server == server, table.c.pin.in_(pins))
    return {pin: unpack_object(definition) for pin, definition in tx.connection.execute(query)}
