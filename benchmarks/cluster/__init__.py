"""Several ranks: what they exchange."""
