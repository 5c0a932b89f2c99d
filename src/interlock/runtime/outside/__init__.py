"""Agents that run elsewhere: their sessions are runs, and each of their calls is a step of one."""
