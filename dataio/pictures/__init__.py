"""Decoding of pictures and depth maps, caches, and the pixel store."""
