"""Ways to reach a tool; each passes the connector conformance suite."""
