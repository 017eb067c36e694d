"""Maps an OpenTelemetry span to its record in agentspan, by a table for each family of attributes and shared readers.

The names of mapped attributes are in these modules only. The modules do no I/O.
"""
