"""Maps a span of OpenTelemetry to its record in agentspan: a table for each family of attributes, and shared readers.

Attributes' names stand in these files and nowhere else. None of them does I/O.
"""
