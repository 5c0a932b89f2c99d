"""Rows and spans in, answers out: traces, costs, lineage and incident questions."""
