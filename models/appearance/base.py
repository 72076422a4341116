"""What every appearance offers, and what is learned of single photographs."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator
from torch import Tensor, nn

from models.capabilities import Offer, type_of
from models.networks.mlp import kept_by_networks
from models.samples import Points
from utils.config.parts import Choice, Part


class PerImageConfig(Part):
    """What differs from photograph to photograph, learned for each camera.

    adds_features: whether the appearance gets more features by it. needs_color: whether it works on colors of three
    channels alone.
    """

    adds_features: ClassVar[bool] = False
    needs_color: ClassVar[bool] = False

    def build(self, cameras: int) -> PerImage:
        """For so many cameras."""
        raise TypeError("a per-image config says how it is built")


class PerImage(nn.Module):
    """Changes features before the appearance sees them, or colors after it. width: how many features it adds.

    What was learned of a camera serves that camera; points of no photograph, and photographs that were not trained
    on, get the mean over those that were.
    """

    width: int = 0

    def features(self, features: Tensor, at: Points) -> Tensor:
        """[*N, F] -> [*N, F + width]. Differentiable in features and the parameters."""
        return features

    def color(self, color: Tensor, at: Points) -> Tensor:
        """[*N, C] -> [*N, C]. Differentiable in color and the parameters."""
        return color


class AppearanceConfig(Part):
    """Features, normal and points to color. needs: what the field must offer."""

    default_type: ClassVar[str | None] = "mlp"

    any_features: ClassVar[bool] = False  # whether features are not colors or their coefficients

    per_image: Choice[PerImageConfig] | None = None

    @model_validator(mode="after")
    def _per_image_fits(self) -> Self:
        part = self.per_image
        if part is not None and part.adds_features and not self.any_features:
            raise ValueError(
                f"per_image.type: {type_of(part)} adds features, which type: {type_of(self)} takes as colors; expected"
                " type: mlp, or per_image: tint"
            )
        if part is not None and part.needs_color and self.channels != 3:
            raise ValueError(
                f"per_image.type: {type_of(part)} changes colors of 3 channels, type: {type_of(self)} gives"
                f" {self.channels}; expected per_image: null for what is shaded after compositing"
            )
        return self

    @property
    def needs(self) -> frozenset[Offer]:
        """What the field must offer."""
        return frozenset()

    @property
    def channels(self) -> int:
        """Of the color: three, unless they are shaded after compositing."""
        return 3

    def build(self, features: int, *, gradient: bool) -> Appearance:
        """For a field of so many features, with or without a gradient. Raises InputError where that does not fit."""
        raise TypeError("an appearance config says how it is built")


class Appearance(nn.Module):
    """(points, features, normal) -> color."""

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        """[*N, C] colors, three in [0, 1] unless they are channels of a shading.

        features: [*N, F]. normal: [*N, 3], the gradient of the field's value, turned outward, of its own length; None
        for a field without. Differentiable in features, normal and the parameters, once.
        """
        raise TypeError("an appearance defines forward")

    def kept(self) -> int:
        """Numbers of a sample that stay for the backward pass."""
        return kept_by_networks(self)

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
