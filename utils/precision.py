"""Faster matrix products where the last digits do not count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def fast_products(device_type: str) -> Iterator[None]:
    """Within, products of float32 matrices run in bfloat16 on a CPU and in TensorFloat-32 on CUDA.

    Sums are float32. What is multiplied keeps 8 bits (CUDA: 11) of its mantissa; nothing else changes, no tensor is
    converted. Without hardware for it (AVX512-BF16 or AMX; Ampere) products stay as they are. Process-wide.
    """
    backends: Any = torch.backends
    products = (backends.cuda if device_type == "cuda" else backends.mkldnn).matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32" if device_type == "cuda" else "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before
