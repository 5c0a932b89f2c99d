"""Secrets by reference: sealed in the database, opened just before they are used."""
