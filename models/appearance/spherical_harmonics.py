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
    activation: Literal["sigmoid", "relu"] = Field(
        "sigmoid", description="of the sum; relu: one half is added first, and pictures are cut at 1, training is not"
    )

    def build(self, features: int, *, gradient: bool) -> HarmonicColor:
        needed = 3 * (self.degree + 1) ** 2
        if features != needed:
            raise InputError(
                f"appearance.type: spherical_harmonics of degree {self.degree} needs {needed} features;"
                f" field.features is {features}"
            )
        return HarmonicColor(self.degree, self.activation)


class HarmonicColor(Appearance):
    """color = sigmoid(c), or max(0, c + 1/2), of c = sum of k_lm Y_lm(d), k the coefficients of a channel.

    Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.1, and its published code, which has the second; Yu et al.,
    "PlenOctrees" (2021), eq. 4, have the first. Above 1 the second is cut outside of training only, where a loss would
    have no gradient.
    """

    def __init__(self, degree: int, activation: str) -> None:
        super().__init__()
        self.degree, self.activation = degree, activation

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        """[*N, 3] in [0, 1], in training with `relu` >= 0; see `Appearance.forward`."""
        basis = harmonics(at.directions.reshape(-1, 3), degree=self.degree)
        coefficients = features.reshape(len(basis), 3, basis.shape[-1])
        color = (coefficients * basis[:, None]).sum(-1).view(*features.shape[:-1], 3)
        if self.activation == "sigmoid":
            return torch.sigmoid(color)
        return (color + 0.5).clamp(min=0.0, max=None if self.training else 1.0)
