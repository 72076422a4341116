"""Products of three lines (TensoRF)."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.encodings.factors import FactorConfig


class TensorCpConfig(FactorConfig):
    """A line on each axis, multiplied. Chen et al., "TensoRF" (2022), eq. 5: canonical polyadic decomposition."""

    type: Literal["tensor_cp"] = "tensor_cp"
    axes: ClassVar[tuple[tuple[int, ...], ...]] = ((0,), (1,), (2,))
    together: ClassVar[int] = 3
