"""Nouns: frozen values, enums and pure functions on them; imports nothing of ours and sees no outside world."""
