"""From what a ray has accumulated to its color."""
