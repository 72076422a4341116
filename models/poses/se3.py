"""A camera moves by a rigid motion of the scene frame."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from models.poses.base import Poses, PosesConfig, exponential


class Se3Config(PosesConfig):
    """The exponential of a twist: rotation about an axis through the scene's origin, and the shift along with it."""

    type: Literal["se3"] = "se3"

    def build(self, cameras: int) -> Se3:
        return Se3(cameras)


class Se3(Poses):
    """d' = R d, o' = R o + V v, with R = exp([w]x) and V its mean on the way. As in Lin et al., "BARF" (2021)."""

    turns_centers: ClassVar[bool] = True

    def motion(self, correction: Tensor) -> tuple[Tensor, Tensor]:
        """[C, 6] -> [C, 3, 3] and [C, 3]; see `Poses.motion`."""
        turn, mean = exponential(correction[:, :3])
        return turn, (mean @ correction[:, 3:, None])[:, :, 0]
