"""OpenTelemetry spans of this process, recorded while they run. `SpanProcessor` in processor.py is the way in."""
