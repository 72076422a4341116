"""The data doctor: what would spoil a run, found before it."""
