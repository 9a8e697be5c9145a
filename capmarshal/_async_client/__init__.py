"""Calls that are awaited, as their client makes them in an event loop."""
