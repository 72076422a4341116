"""What data say of every pixel beside its color: one file, one quantity."""
