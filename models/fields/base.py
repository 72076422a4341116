"""What every field offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from models.capabilities import Bounds, DataFacts, ValueKind
from models.samples import FieldSample
from utils.config.parts import Part

if TYPE_CHECKING:
    from models.networks.mlp import Mlp


Distance = Callable[[Tensor], Tensor]  # [N, 3] scene frame -> [N] scene units, positive outside


class FieldConfig(Part):
    """A representation: position and direction to value and color.

    value_kind: what its value means. gives_gradient: whether d(value)/dx comes with it. covers: where it is defined.
    """

    value_kind: ClassVar[ValueKind]
    gives_gradient: ClassVar[bool] = False
    covers: ClassVar[frozenset[Bounds]] = frozenset({"sphere"})

    def build(self) -> Field:
        """The field. Raises InputError for networks that cannot be built."""
        raise TypeError("a field config says how it is built")

    def warnings(self, data: DataFacts) -> Iterator[str]:
        """One line for each reason why this field, as foreground, does not suit the data, with the key to change."""
        if not data.masks and not data.background:
            yield (
                "these photographs have no masks and the model has no background; what lies behind the object will"
                " spoil it - configs/neus_hash_open.yaml has one"
            )


class Field(nn.Module):
    """Position and view direction -> FieldSample."""

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N]: sdf, raw density or logit; cheaper than the whole sample.

        Differentiable in x and the parameters, once.
        """
        raise TypeError("a field defines value")

    def forward(self, x: Tensor, directions: Tensor) -> FieldSample:
        """x: [*N, 3] scene frame; directions: [*N, 3] unit, from the camera into the scene.

        Differentiable in the parameters, once.
        """
        raise TypeError("a field defines forward")

    def initialize(self, shapes: Mapping[str, Callable[[], Distance | None]] | None = None) -> None:
        """Initialize what has no closed form; once, for a new run, from torch's generator of the CPU.

        shapes: by the name of an initialization, what makes the distance to a shape that is known from the data, or
        None where it is not: hull, from masks; ground and relief, from sparse points.
        """

    def low_precision_networks(self) -> list[Mlp]:
        """The networks whose matrix products may be rounded to bfloat16 in training: never those of a distance."""
        return []

    def gradient(self, x: Tensor) -> Tensor | None:
        """d(value)/dx, [*N, 3], per scene unit; None for fields without one. Differentiable in the parameters, once."""
        return None

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def refresh(self, medium: nn.Module, step: int) -> bool:
        """Change the layout if it is time to; as `Encoding.refresh`. medium: the volume that the field belongs to."""
        return False

    def latest_change(self) -> str:
        """What the log says after `refresh` returned True."""
        return "changed its layout"
