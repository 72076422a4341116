"""Renderers: cameras to frames, chosen by name."""
