"""The road of a tool call: propose, validate, approve, execute, record."""
