"""A camera turns about its own center, and its center moves."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from models.poses.base import Poses, PosesConfig, exponential


class So3xR3Config(PosesConfig):
    """Rotation about the camera's center and translation, each by itself."""

    type: Literal["so3xr3"] = "so3xr3"

    def build(self, cameras: int) -> So3xR3:
        return So3xR3(cameras)


class So3xR3(Poses):
    """d' = R d, o' = o + v, with R = exp([w]x). As in Tancik et al., "Nerfstudio" (2023)."""

    turns_centers: ClassVar[bool] = False

    def motion(self, correction: Tensor) -> tuple[Tensor, Tensor]:
        """[C, 6] -> [C, 3, 3] and [C, 3]; see `Poses.motion`."""
        return exponential(correction[:, :3])[0], correction[:, 3:]
