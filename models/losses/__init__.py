"""Terms of the objective: one file per loss."""
