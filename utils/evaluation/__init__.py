"""The numbers of a run: images, meshes, points, heights, and metrics.json."""
