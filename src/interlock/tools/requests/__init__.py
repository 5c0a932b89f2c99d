"""How a call becomes a request: pure, so that every rule is testable."""
