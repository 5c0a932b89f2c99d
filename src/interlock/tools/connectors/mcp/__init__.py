"""MCP servers: a session that is kept, over HTTP or to a process, and what it offers."""
