"""Polling before sleeping: for how long a waiter does it, and how to switch it off."""

from __future__ import annotations

import os
import warnings

# Nanoseconds.  To be woken on another CPU takes longer than that, measured: 65 microseconds on a virtual machine.
_LONGEST = 50_000

# For a process whose CPU time is dearer to it than the time its calls take: under a CPU quota, or on a battery.
_SWITCH = "CAPMARSHAL_POLL"

_value = os.environ.get(_SWITCH, "")
if _value not in ("", "0", "1"):
    warnings.warn(f"{_SWITCH}={_value} does nothing: {_SWITCH}=0 switches polling off", RuntimeWarning, stacklevel=2)

# What C is told: 0 for never.
poll_nanoseconds = 0 if _value == "0" else _LONGEST
