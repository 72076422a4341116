"""What evaluate.py measures: the pictures of a run, foreign renderings, surfaces."""
