"""Streams of numbers that tell how many were made, and how many of the streams are closed."""

from __future__ import annotations


class Counted:
    """Gives such, of a method that blocks."""

    def __init__(self):
        self.made = self.closed = 0

    def count(self, upto):
        try:
            for number in range(upto):
                self.made += 1
                yield number
        finally:
            self.closed += 1


class AwaitedCounted:
    """Likewise, where the items are awaited."""

    def __init__(self):
        self.made = self.closed = 0

    async def count(self, upto):
        try:
            for number in range(upto):
                self.made += 1
                yield number
        finally:
            self.closed += 1
