"""What the bytes of a record mean: no socket in here."""
