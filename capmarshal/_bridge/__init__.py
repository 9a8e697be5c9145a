"""What a bridge between machines consists of; what people import is :mod:`capmarshal.bridge`."""
