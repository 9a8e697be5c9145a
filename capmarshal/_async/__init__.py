"""What awaits: the same calls and entrypoints in an event loop."""
