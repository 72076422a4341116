"""What does not depend on rays: configuration, schedules, checkpoints, logs, metrics, meshes, pictures."""
