"""Planes times lines (TensoRF)."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.encodings.factors import FactorConfig


class TensorVmConfig(FactorConfig):
    """Three planes, each times a line across it. Chen et al., "TensoRF" (2022), eq. 6: vectors and matrices."""

    type: Literal["tensor_vm"] = "tensor_vm"
    axes: ClassVar[tuple[tuple[int, ...], ...]] = ((0, 1), (2,), (0, 2), (1,), (1, 2), (0,))
    together: ClassVar[int] = 2
