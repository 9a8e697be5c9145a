"""What ``capmarshal bridge`` does."""
