"""How right surfaces are and where, and what a loss that shapes them costs."""
