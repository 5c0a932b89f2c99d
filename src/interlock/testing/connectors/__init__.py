"""The conformance suite of connectors: what its author brings, a wire that fails, the checks."""
