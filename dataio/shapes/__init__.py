"""Surfaces known before training: visual hull, relief, ground, and the demo object."""
