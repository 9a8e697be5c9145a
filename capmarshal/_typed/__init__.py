"""Interfaces, and what their annotations make of arguments and results."""
