"""The MCP gateway: agents of any framework come in here and take the one road."""
