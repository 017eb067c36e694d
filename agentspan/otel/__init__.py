"""OpenTelemetry: spans of instrumentors, read as spans of agentspan. No module of it is imported unless it is used."""
