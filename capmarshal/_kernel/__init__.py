"""The floor: the compiled extension, errors, deadlines, and how to wait."""
