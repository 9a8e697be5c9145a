"""What the command ``capmarshal`` does: a module for each word after it."""
