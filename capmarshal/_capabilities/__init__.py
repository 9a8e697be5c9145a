"""Doors and capabilities: who is who, and nothing held twice."""
