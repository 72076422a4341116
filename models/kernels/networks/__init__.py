"""Kernels of networks and of their optimizer."""
