"""Kernels of encodings: hash grid, spherical harmonics."""
