"""What agentspan knows about spans, runs and agents: pure functions and values. No I/O, no clock, no ids made here."""
