"""Structure from motion: the poses of raw photographs."""
