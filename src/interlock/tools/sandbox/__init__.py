"""Untrusted Python tools: code of the release, each call in a process that can only compute."""
