"""Fields: position (and direction) to value, color and gradient."""
