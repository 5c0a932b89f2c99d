"""Control plane for AI agents: plans, routes, governs, observes and evaluates their work."""

__all__: list[str] = []
