"""agentspan: a flight recorder for AI agents. Every step becomes one row in one SQLite file."""

__version__ = "0.1.0"
