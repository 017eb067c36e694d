"""Spans, runs and agents as pure functions and values. No I/O; nothing here reads the clock or makes an id."""
