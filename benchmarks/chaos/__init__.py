"""Chaos: the product's own processes are killed, stopped and cut off, and the same command is given again each time."""
