"""What every field offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from models.capabilities import INSIDE, DataFacts, Offer
from models.networks.mlp import Mlp, kept_by_networks
from models.samples import FieldSample, Points
from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.scene import Scene


class FieldConfig(Part):
    """A representation: points to value and features.

    value_kind: what its value means. offers: what else it has for samplers, opacities and losses. covers: where it is
    defined.
    """

    value_kind: ClassVar[Offer]
    offers: ClassVar[frozenset[Offer]] = frozenset()
    covers: ClassVar[frozenset[Offer]] = frozenset({INSIDE})

    def build(self) -> Field:
        """The field, before `reset_parameters`. Raises InputError for networks that cannot be built."""
        raise TypeError("a field config says how it is built")

    def warnings(self, data: DataFacts) -> Iterator[str]:
        """One line for each reason why this field, as foreground, does not suit the data, with the key to change."""
        if not data.masks and not data.background:
            yield (
                "these photographs have no masks and the model has no background; what lies behind the object will"
                f" spoil it - {data.suited()} suits them"
            )


class Field(nn.Module):
    """Points -> FieldSample. features: how many numbers it hands to the appearance. has_gradient: with every sample."""

    features: int = 0
    has_gradient: bool = False

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N]: sdf, raw density or logit; cheaper than the whole sample.

        Differentiable in x and the parameters, once.
        """
        raise TypeError("a field defines value")

    def forward(self, at: Points) -> FieldSample:
        """Value, features [*N, F] and, where it has one, gradient at points `*N`.

        Differentiable in x, directions and the parameters, once; at the walls of a grid's cells, where the gradient of
        a distance jumps, within the cell.
        """
        raise TypeError("a field defines forward")

    def reset_parameters(self) -> None:
        """Draw first values in closed form from torch's generator, once all parts of a volume are built."""

    def initialize(self, scene: Scene | None = None) -> None:
        """Initialize what has no closed form; once, for a new run, from torch's generator of the CPU.

        scene: the data, where a shape may be known from them.
        """

    def kept(self) -> int:
        """Numbers of a sample that stay for the backward pass."""
        return kept_by_networks(self, gradient=self.has_gradient)

    def passed(self) -> int:
        """Numbers of a point that are there while its value is computed without a graph."""
        networks = (part for part in self.children() if isinstance(part, Mlp))
        return sum(network.inputs + network.linears()[-1].bias.numel() for network in networks)

    def low_precision_networks(self) -> list[Mlp]:
        """The networks whose matrix products may be rounded to bfloat16 in training: never those of a distance."""
        return []

    def gradient(self, x: Tensor) -> Tensor | None:
        """d(value)/dx, [*N, 3], per scene unit; None for fields without one. Differentiable in the parameters, once."""
        return None

    def own_gradient(self, x: Tensor) -> Tensor | None:
        """The same in the coordinates in which a distance is one: its length there should be one."""
        return self.gradient(x)

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def refresh(self, medium: nn.Module, step: int) -> bool:
        """Change the layout if it is time to; as `Encoding.refresh`. medium: the volume that the field belongs to."""
        return False

    def resampled(self) -> list[nn.Parameter]:
        """The parameters whose numbers are others after `refresh` returned True; as `Encoding.resampled`."""
        return list(self.parameters(recurse=False))

    def latest_change(self) -> str:
        """What the log says after `refresh` returned True."""
        return "changed its layout"
