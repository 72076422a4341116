"""Optimizers: one file per update rule, and what treats several of them as one."""
