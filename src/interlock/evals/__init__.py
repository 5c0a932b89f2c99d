"""Suites, scores and gates: the end state and the ledger are judged first, text last."""
