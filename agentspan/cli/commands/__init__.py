"""What can be typed: one function a command, each importing what it needs when it runs."""
