"""Checkpoints of a run in progress: when one is due, and the thread that writes it."""
