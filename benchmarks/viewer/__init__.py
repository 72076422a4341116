"""The viewer, measured from outside."""
