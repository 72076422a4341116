"""What a run is: its config, its parts put together, training, resuming, and opening it again."""
