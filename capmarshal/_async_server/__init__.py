"""Serving in an event loop: calls whose methods are awaited."""
