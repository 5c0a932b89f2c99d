"""Golden suites: the end state of the world and the ledger are judged, not what was said."""
