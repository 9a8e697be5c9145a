"""What an honest client pays for its neighbour: the same calls alone, and beside loads of one other client.

Only what people may import of capmarshal is used, and records are laid out by hand: any version can be measured.
"""
