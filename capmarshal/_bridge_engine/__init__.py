"""What carries bodies between machines: the seam, and NATS behind it."""
