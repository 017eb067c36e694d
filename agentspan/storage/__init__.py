"""Where rows live: the protocol, and two backends that are peers, SQLite and memory."""
