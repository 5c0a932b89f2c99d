"""Public test kit: clock, scripted model, recording tool server, an engine without a queue."""
