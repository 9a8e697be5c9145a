"""What an honest client pays for its neighbour: the same calls alone, and beside loads of one other client."""
