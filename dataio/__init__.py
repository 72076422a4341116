"""Files on disk -> `Scene` -> batches of rays."""
