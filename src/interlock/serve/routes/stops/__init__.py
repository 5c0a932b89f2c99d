"""REST: what stops calls: breakers of servers that fail, kill switches of operators."""
