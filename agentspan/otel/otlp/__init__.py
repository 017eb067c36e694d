"""OTLP: requests of OpenTelemetry exporters, as spans and log records. Pure: no network, no file, no clock.

`requests.py` is the way in: a body, its content type and its encoding. Protobuf needs the extra `otlp`; JSON needs
nothing.
"""
