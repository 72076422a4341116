"""An affine change of color per photograph: exposure and white balance."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.appearance.base import PerImage, PerImageConfig
from models.appearance.embedding import of_cameras
from models.samples import Points


class TintConfig(PerImageConfig):
    """A matrix and an offset of the colors of each photograph."""

    type: Literal["tint"] = "tint"
    needs_color: ClassVar[bool] = True

    def build(self, cameras: int) -> Tint:
        return Tint(cameras)


class Tint(PerImage):
    """color' = color + A color + b, A and b of the camera, zero at first. Rematas et al., "Urban Radiance Fields"
    (2022), section 4.2, with an offset beside the matrix.

    It changes the colors of samples, not what lies behind them: the color over which masked photographs were laid
    stays as it is. For colors of three channels.
    """

    def __init__(self, cameras: int) -> None:
        super().__init__()
        self.affine = nn.Parameter(torch.zeros(cameras, 12))

    def color(self, color: Tensor, at: Points) -> Tensor:
        """[*N, 3] -> [*N, 3]; see `PerImage.color`."""
        affine = of_cameras(self.affine, at, training=self.training)
        matrix, offset = affine[..., :9].unflatten(-1, (3, 3)), affine[..., 9:]
        return color + (matrix * color[..., None, :]).sum(-1) + offset
