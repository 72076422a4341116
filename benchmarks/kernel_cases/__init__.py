"""Each kernel beside its PyTorch baseline on the same inputs."""
