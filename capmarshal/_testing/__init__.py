"""What tests of users' own servers and clients stand on; :mod:`capmarshal.testing` is what they import."""
