"""What every encoding offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from models.cells import Cells
from utils.config.parts import Part


class EncodingConfig(Part):
    """Lifts points to features."""

    any_dimensions: ClassVar[bool] = False  # whether `build` takes more than the three of space

    @property
    def numbers(self) -> int:
        """Of its table, all growths included; 0 where it has none."""
        return 0

    def lowered(self, share: float) -> str:
        """`key=value` of which a table has at most about `share` in (0, 1) of its numbers; empty where no key is so."""
        return ""

    def build(self, dimensions: int = 3) -> Encoding:
        """An encoding of points [*N, dimensions]."""
        raise TypeError("an encoding config says how it is built")


class Encoding(nn.Module):
    """[*N, 3] -> [*N, width]. The first 3 features are the input itself where `keeps_input` is true.

    generation: counts changes of the layout; as a plain attribute it has recorded work recorded anew.
    """

    width: int
    keeps_input: bool = False
    generation: int = 0

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Features [*N, width], and their vjp in x: feature weights [*N, width] -> [*N, 3]; to be called once at most.

        Features and vjp are differentiable in x and the parameters, once. Raises TypeError where there is none.
        """
        raise TypeError("this encoding has no input gradient")

    def features(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width], or three fewer: without the input itself. Differentiable as the encoding."""
        return self(x)[..., 3 * self.keeps_input :]

    def total(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N], the sum of the features without the input itself. Differentiable as the encoding."""
        return self.features(x).sum(-1)

    def cover(self, low: Tensor, high: Tensor) -> None:
        """Spend what it has on the box between corners `low` and `high`, [3] each; nothing where it cannot.

        Called once, before the first step of a new run.
        """

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""

    def refresh(self, progress: float) -> bool:
        """Change the layout if it is time to; called before every training step, the same on every rank.

        Parameters are resampled in place, and keep their shapes. Returns whether the layout changed: the optimizer then
        forgets what it knows of those in `resampled`.
        """
        return False

    def resampled(self) -> list[nn.Parameter]:
        """The parameters whose numbers are others after `refresh` returned True; none where rows were added alone."""
        return list(self.parameters(recurse=False))

    def bytes_of_change(self) -> int:
        """What `refresh` takes at most beside all that is kept, where it changes the layout."""
        return 0

    def measures(self) -> dict[str, float]:
        """How large the layout is by now, by name, for the log; empty for one that never changes."""
        return {}

    def cells_at(self, x: Tensor) -> Cells | None:
        """The cells at points [*N, 3] of the cube [-1, 1]^3; None where they are all alike, or there are none."""
        return None

    def latest_change(self) -> str:
        """What the log says after `refresh` returned True, as `grew to 32, 64`."""
        return "changed its layout"
