"""Recording in someone else's process: decorators and with-blocks that never raise, wait long, or keep what is done."""
