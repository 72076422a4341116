"""Surfaces as triangle meshes: extraction, cleaning, files."""
