"""Primitives in NVIDIA Warp, one source for CPU and CUDA: march, scan, hash encoding.

Every file has, in this order: the public function, its `autograd.Function`, the kernels. Backward passes are
written by hand. Nothing of the project is imported here.
"""
