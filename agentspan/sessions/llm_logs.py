"""Decodes session files."""

from agentspan.sessions.formats import Format

FORMATS: list[Format] = []
