"""Public test kit: clock, scripted model, recording tool server, durable port in memory."""
