"""What every encoding offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from utils.config.parts import Part


class EncodingConfig(Part):
    """Lifts points to features."""

    any_dimensions: ClassVar[bool] = False  # whether `build` takes more than the three of space

    def build(self, dimensions: int = 3) -> Encoding:
        """An encoding of points [*N, dimensions]."""
        raise TypeError("an encoding config says how it is built")


class Encoding(nn.Module):
    """[*N, 3] -> [*N, width]. The first 3 features are the input itself where `keeps_input` is true."""

    width: int
    keeps_input: bool = False

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Features [*N, width], and their vjp in x: feature weights [*N, width] -> [*N, 3]; to be called once at most.

        Features and vjp are differentiable in x and the parameters, once. Raises TypeError where there is none.
        """
        raise TypeError("this encoding has no input gradient")

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
