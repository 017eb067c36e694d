"""From a span of OpenTelemetry to what agentspan records of it: one file a family of attributes, and what they share.

Attributes' names stand in these files and nowhere else. None of them does I/O.
"""
