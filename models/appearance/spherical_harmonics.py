"""Features that are coefficients of spherical harmonics (Plenoxels)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.appearance.base import Appearance, AppearanceConfig
from models.kernels.networks.color_inputs import MOST_DEGREE, harmonics
from models.samples import Points
from utils.errors import InputError


class HarmonicColorConfig(AppearanceConfig):
    """Each channel a sum of harmonics of the view, whose coefficients are the features, channel by channel."""

    type: Literal["spherical_harmonics"] = "spherical_harmonics"
    degree: int = Field(2, ge=0, le=MOST_DEGREE)

    def build(self, features: int, *, gradient: bool) -> HarmonicColor:
        needed = 3 * (self.degree + 1) ** 2
        if features != needed:
            raise InputError(
                f"appearance.type: spherical_harmonics of degree {self.degree} needs {needed} features;"
                f" field.features is {features}"
            )
        return HarmonicColor(self.degree)


class HarmonicColor(Appearance):
    """color = sigmoid(sum of k_lm Y_lm(d)). Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.1.

    The sigmoid is ours (PlenOctrees has it too): the published code clamps at zero.
    """

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        """[*N, 3] in [0, 1]; see `Appearance.forward`."""
        basis = harmonics(at.directions.reshape(-1, 3), degree=self.degree)
        coefficients = features.reshape(len(basis), 3, basis.shape[-1])
        return torch.sigmoid((coefficients * basis[:, None]).sum(-1)).view(*features.shape[:-1], 3)
