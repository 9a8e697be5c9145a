"""Calls without a class: what an object's entrypoint says of it, read, shown, and called by."""
