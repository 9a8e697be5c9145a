"""Takes memory, until there is none."""

eaten = []
while True:
    eaten.append(bytearray(1 << 24))
