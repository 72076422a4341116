"""Bounds of a medium: which piece of a ray lies in it, and where its field finds a point of it."""
