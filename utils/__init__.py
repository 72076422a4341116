"""What knows nothing of rays: configuration, schedules, checkpoints, logs, metrics, meshes, pictures."""
