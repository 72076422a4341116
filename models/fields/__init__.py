"""Fields and encodings: position (and direction) to value, color and gradient."""
