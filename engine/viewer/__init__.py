"""A run, an asset or a mesh in a browser."""
