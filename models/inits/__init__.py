"""Shapes of a surface at first, one file each."""
