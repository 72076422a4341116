"""Encodings of positions and directions: one file per encoding."""
