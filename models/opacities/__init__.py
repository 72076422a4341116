"""Field values to optical depth: one file per opacity."""
