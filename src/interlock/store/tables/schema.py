"""The schema whole: `metadata` once every table is declared in it; migrations create it.

Times are integer microseconds (UTC). JSON columns hold canonical JSON text. Ids are text.
"""

from __future__ import annotations

from interlock.store.tables import calls, keys, ladder, runs, seen
from interlock.store.tables.naming import metadata

__all__ = ["calls", "keys", "ladder", "metadata", "runs", "seen"]
