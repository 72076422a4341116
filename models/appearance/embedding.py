"""A latent code per photograph (NeRF in the Wild)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.appearance.base import PerImage, PerImageConfig
from models.samples import Points


class EmbeddingConfig(PerImageConfig):
    """Numbers of each photograph, as further features: light, weather, exposure."""

    type: Literal["embedding"] = "embedding"
    adds_features: ClassVar[bool] = True
    width: int = Field(8, ge=1, le=256, description="numbers per photograph")

    def build(self, cameras: int) -> Embedding:
        return Embedding(self.width, cameras)


class Embedding(PerImage):
    """features' = [features, code of the camera]. Martin-Brualla et al., "NeRF in the Wild" (2021), section 4.1.

    Codes start at zero, so those that never moved are of photographs that were not trained on.
    """

    def __init__(self, width: int, cameras: int) -> None:
        super().__init__()
        self.width = width
        self.codes = nn.Parameter(torch.zeros(cameras, width))

    def features(self, features: Tensor, at: Points) -> Tensor:
        """[*N, F] -> [*N, F + width]; see `PerImage.features`."""
        code = of_cameras(self.codes, at, training=self.training)
        return torch.cat([features, code.expand(*features.shape[:-1], self.width)], -1)


def of_cameras(learned: Tensor, at: Points, *, training: bool) -> Tensor:
    """Rows of learned [C, K] for the points' cameras: [*N, K], or [K], the mean, for points of no photograph.

    A row that is exactly zero was never trained on; the mean over the others stands in, but in training. Differentiable
    in learned.
    """
    if at.samples is None:
        return _mean(learned)
    camera = at.samples.rays.camera
    row = learned[camera.clamp_min(0)]
    if not training:
        known = learned.detach().ne(0).any(-1)[camera.clamp_min(0)] & (camera >= 0)
        row = torch.where(known[:, None], row, _mean(learned))
    return at.samples.spread(row)


def _mean(learned: Tensor) -> Tensor:
    trained = learned.detach().ne(0).any(-1, keepdim=True)
    return (learned * trained).sum(0) / trained.sum().clamp_min(1)
