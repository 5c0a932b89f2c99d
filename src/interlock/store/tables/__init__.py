"""The tables, as SQLAlchemy Core metadata; migrations create them, nothing else does."""
