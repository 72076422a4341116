"""What every shape at first offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from models.networks.mlp import Mlp, geometric_initialization
from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.scene import Scene

Distance = Callable[[Tensor], Tensor]  # [N, 3] scene frame -> [N] scene units, positive outside


@dataclass(frozen=True)
class Ball:
    """The sphere that a surface is at first where nothing better is known; all from the field's config.

    radius: scene units. inside_out: whether the cameras are inside. feature_scale: of the initial weights of all inputs
    but the coordinates.
    """

    radius: float
    inside_out: bool
    feature_scale: float

    def distance(self, x: Tensor) -> Tensor:
        """[N, 3] scene frame -> [N] scene units, positive where the cameras are. Differentiable in x."""
        return (-1.0 if self.inside_out else 1.0) * (x.norm(dim=-1) - self.radius)


class InitConfig(Part):
    """The shape of a surface at first. from_data: whether the data say it, so that nothing is guessed."""

    from_data: ClassVar[bool] = False

    def closed_form(self, network: Mlp, ball: Ball) -> None:
        """Give a network of coordinates and relus, or softplus, its first weights, drawn from torch's generator.

        The sphere, unless a shape has a closed form of its own.
        """
        geometric_initialization(
            network, radius=ball.radius, inside_out=ball.inside_out, feature_scale=ball.feature_scale
        )

    def plain(self, ball: Ball) -> Distance:
        """The distance that a network without a closed form is fitted to where `distance` knows none."""
        return ball.distance

    def distance(self, scene: Scene) -> Distance | None:
        """The distance that the network is fitted to; None where the closed form, or `plain`, is the shape."""
        return None

    def beyond(self, scene: Scene) -> Distance | None:
        """The same for what lies beyond the unit sphere, in the contracted ball and its units."""
        return None
