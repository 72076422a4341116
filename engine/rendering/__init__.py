"""Frames of a run as files: what they show, in which order they are made, and what they become."""
