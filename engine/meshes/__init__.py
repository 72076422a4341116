"""What becomes of a run's surface: extracted, cut, colored, textured, written."""
