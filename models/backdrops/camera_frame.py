"""A picture that every camera sees in the same place: what stands still while an object turns on a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.backdrops.base import Backdrop, BackdropConfig
from models.encodings.base import EncodingConfig
from models.encodings.hash_grid import HashGridConfig
from models.networks.mlp import Mlp, MlpConfig
from utils.config.parts import Choice

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays


class CameraFrameConfig(BackdropConfig):
    """A color by the ray's direction in its camera's frame: a turntable's surroundings, a rig's frame."""

    type: Literal["camera_frame"] = "camera_frame"
    encoding: Choice[EncodingConfig] = Field(
        HashGridConfig(levels=8, base=16, top=1024, log2_rows=16), description="of the direction, a unit vector"
    )
    network: MlpConfig = MlpConfig(layers=1, width=64)

    def build(self, cameras: int) -> CameraFrame:
        return CameraFrame(self, cameras)


class CameraFrame(Backdrop):
    """color = sigmoid(network(encoding(R^T d))), R the axes of the ray's camera and d its unit direction.

    Axes are those of the cameras as they are given, also where `model.poses` corrects them. A camera that took no
    photograph has no place in such a picture.
    """

    axes: Tensor

    def __init__(self, config: CameraFrameConfig, cameras: int) -> None:
        super().__init__()
        self.encoding = config.encoding.build()
        self.network = Mlp(self.encoding.width, 3, config.network)
        self.register_buffer("axes", torch.eye(3).repeat(max(cameras, 1), 1, 1))  # [C, 3, 3] columns x, y, z

    def initialize(self, cameras: Cameras) -> None:
        self.axes.copy_(cameras.camera_to_world[:, :, :3])

    def update(self, progress: float) -> None:
        self.encoding.update(progress)

    def forward(self, rays: Rays, otherwise: Tensor) -> Tensor:
        """[R, 3]; see `Backdrop.forward`."""
        axes = self.axes.index_select(0, rays.camera.clamp_min(0))
        local = (axes * rays.directions[:, :, None]).sum(1)
        color = torch.sigmoid(self.network(self.encoding(local)))
        return torch.where((rays.camera >= 0)[:, None], color, otherwise)
