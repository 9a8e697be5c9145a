"""Calls as their server takes, runs and answers them."""
