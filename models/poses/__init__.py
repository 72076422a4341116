"""Corrections of camera poses that are learned with the model: one file per way to move a camera."""
