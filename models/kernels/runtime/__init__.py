"""How kernels are written, compiled and launched."""
