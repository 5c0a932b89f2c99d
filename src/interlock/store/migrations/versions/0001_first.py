"""The first schema.

Until the first release it creates the tables as the code has them; the release writes them out
here, and from then on this file never changes.
"""

from __future__ import annotations

from alembic import op

from interlock.store.tables.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table and index."""
    metadata.create_all(op.get_bind(), checkfirst=False)
