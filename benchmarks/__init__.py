"""What a training step costs, measured the same way everywhere."""
