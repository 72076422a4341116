"""Rays to color, points to surface: fields, opacities, samplers and the one renderer."""
