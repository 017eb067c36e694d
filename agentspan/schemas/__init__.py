"""The meaning of payloads: span types, conformance to their schemas, summaries, labels and tokens."""
