"""How runs last: segments over the store, found and timed with DBOS; leases, waits, the codec."""
