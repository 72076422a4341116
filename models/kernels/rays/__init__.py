"""Kernels along rays: marching, scans, compositing, clipping, tracing."""
