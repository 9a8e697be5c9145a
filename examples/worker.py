"""Spawned by digest.py: holds nothing but what its parent gave it."""

from digest import Digest

import capmarshal as cm

digest = cm.parent().cast(Digest)
with open("data.bin", "rb") as file, cm.timeout(2.0):
    print(digest.sha256(file))
