"""Turns OpenTelemetry instrumentors on, with a provider that records into agentspan. Contains no instrumentor."""
