"""Deciding: facts in, decision out, and nothing else is seen."""
