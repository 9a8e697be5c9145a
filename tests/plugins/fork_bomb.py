"""Makes processes, and processes that do."""

import os
import subprocess
import sys

from host_api import Host

import capmarshal as cm

log = cm.parent().cast(Host).log()
made = 0
for _ in range(100):
    try:
        if os.fork() == 0:
            os._exit(0)
        made += 1
    except OSError:
        pass
log.write(f"HARM: {made} processes" if made else "refused: fork")
try:
    subprocess.run([sys.executable, "-c", ""], check=True)
    log.write("HARM: a program")
except PermissionError:
    log.write("refused: exec")
