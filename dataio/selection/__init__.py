"""Which pixels a batch is made of: one file per way to choose them."""
