"""The database: every table and every query, the same on SQLite and on Postgres."""
