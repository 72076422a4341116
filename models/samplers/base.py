"""What every sampler offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor, nn

from models.capabilities import INSIDE, Offer
from models.cells import Cells
from models.samples import RaySamples
from utils.config.parts import Part

if TYPE_CHECKING:
    from dataio.cameras import Rays


MOST_SAMPLES = 1 << 16  # of one kind along a ray


class Queryable(Protocol):
    """What a sampler may evaluate, without gradients, of the medium it samples; see `Volume`."""

    def value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N] field value."""

    def occupied(self, value: Tensor, reach: Tensor | float) -> Tensor:
        """[*N] field values -> [*N] bool: whether points within `reach` may matter to a ray; see `Opacity.occupied`."""

    def estimated_optical_depth(self, value: Tensor, samples: RaySamples) -> Tensor:
        """[*N] from field values [*N]; see `Opacity.estimated_optical_depth`."""

    def surface_value(self, x: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf."""

    @property
    def has_width(self) -> bool:
        """Whether `width` is known; does not synchronize with a GPU, as reading it does."""

    def width(self) -> float | None:
        """Distance in scene units over which the opacity rises at the surface; None where it has no such scale."""


class SamplerConfig(Part):
    """Places intervals along rays. needs: what the field must offer it."""

    needs: ClassVar[frozenset[Offer]] = frozenset()

    @property
    def covers(self) -> frozenset[Offer]:
        """Regions in which it may be used."""
        return frozenset({INSIDE})

    def build(self) -> Sampler:
        raise TypeError("a sampler config says how it is built")


class Sampler(nn.Module):
    """(rays, medium) -> RaySamples within [near, far] of every ray; a ray with near >= far gets none, or empty ones.

    In training mode samples are jittered by torch's generator of the rays' device; in evaluation mode they are a
    function of the rays alone. Not differentiable: where samples lie on a ray is a constant to all gradients.
    `RaySamples.proposal` is the rendering by which they were placed, where it wants a loss on its color.
    """

    def forward(self, rays: Rays, medium: Queryable) -> RaySamples:
        raise TypeError("a sampler defines forward")

    def more_to_come(self) -> float:
        """How many times as many samples as at first it may look at in the same space later in the run."""
        return 1.0

    def measures(self) -> dict[str, float]:
        """How large what it keeps of space is by now, by name, for the log; synchronizes."""
        return {}

    def cells_at(self, x: Tensor) -> Cells | None:
        """The cells at points [*N, 3] of the cube [-1, 1]^3, as of an encoding."""
        return None

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def refresh(self, medium: Queryable, step: int) -> None:
        """Called before every training step: bring state up to date. Must be the same on all ranks."""
