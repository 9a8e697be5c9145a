"""Reads what its user may read."""

import os
from pathlib import Path

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
for path in (
    "/etc/passwd",
    f"/proc/{os.getppid()}/environ",
    f"/proc/{os.getppid()}/mem",
    "plugins.sqlite",
    "/etc/shadow",
):
    try:
        log.write(f"HARM: {path}: {Path(path).read_bytes()[:20]!r}")
    except OSError as error:
        log.write(f"refused: {type(error).__name__}")
try:
    cm.parent().cast(Host).folder().open("../host.py")
except FileNotFoundError:
    log.write("refused: by the folder")
