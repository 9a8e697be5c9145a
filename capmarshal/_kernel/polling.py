"""Polling before sleeping: for how long a waiter does it, and how to switch it off."""

from __future__ import annotations

import os

# Nanoseconds.  To be woken on another CPU takes longer than that, measured: 65 microseconds on a virtual machine.
_LONGEST = 50_000

# For a process whose CPU time is dearer to it than the time its calls take: under a CPU quota, or on a battery.
_SWITCH = "CAPMARSHAL_POLL"

# What C is told: 0 for never.
poll_nanoseconds = 0 if os.environ.get(_SWITCH) == "0" else _LONGEST
