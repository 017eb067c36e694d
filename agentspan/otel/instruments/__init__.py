"""Turns instrumentors of OpenTelemetry on, against a provider that records into agentspan. Writes none itself."""
