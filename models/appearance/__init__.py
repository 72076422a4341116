"""Appearance: features, normals and the view to color, one file each; and what is learned of each photograph."""
