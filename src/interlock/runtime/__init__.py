"""Durable runs: the engine, leases, waits, workflows and triggers."""
