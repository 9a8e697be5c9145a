"""Computes for ever, in threads."""

import threading


def compute():
    while True:
        pass


for _ in range(4):
    threading.Thread(target=compute, daemon=True).start()
compute()
