"""What can be called and how to reach it: registry, contracts, credentials, egress, connectors."""
