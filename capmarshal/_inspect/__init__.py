"""Who serves, who holds what, and what waits: told by the kernel, and not by those processes."""
