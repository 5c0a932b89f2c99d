"""Looks at registered tools: whether a binding would work, without a call being made."""
