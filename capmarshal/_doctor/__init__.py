"""What ``capmarshal doctor`` looks at: what the package needs of this machine, and what it does with less."""
