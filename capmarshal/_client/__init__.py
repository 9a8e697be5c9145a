"""Calls as their client makes them."""
