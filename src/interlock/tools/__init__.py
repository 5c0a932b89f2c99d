"""How to reach what can be called: contracts, credentials, egress, connectors, discovery."""
