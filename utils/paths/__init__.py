"""Camera paths: made ones, and those in files."""
