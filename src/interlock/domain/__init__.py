"""Nouns: frozen values, enums, pure functions on them; nothing of ours, nothing of the world."""
