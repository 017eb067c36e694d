"""Recording inside the user's program: decorators and with-blocks that never raise, wait long or keep objects alive."""
