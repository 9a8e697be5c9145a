"""Descriptors: who owns them, how they travel in a message, and how they are closed."""
