"""Camera paths, chosen by name: one path, one file."""
