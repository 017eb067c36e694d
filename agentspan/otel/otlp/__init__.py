"""Decodes OTLP requests of OpenTelemetry exporters into spans and log records, without network or clock.

Start with `requests.decode`, which gets a body, its content type and its encoding. Protobuf needs the extra `otlp`;
JSON needs no extra.
"""
