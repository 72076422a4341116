"""The whole model and the one renderer: media along a ray, near to far, composed by optical depth.

    T_i = exp(-sum_{j<i} tau_j)    w_i = T_i (1 - exp(-tau_i))    color = sum_i w_i c_i + T_end * background
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.backdrops.base import BackdropConfig
from models.capabilities import EVERYWHERE, refuse, type_of
from models.capacity import FIT_EVERY, Capacity
from models.networks.mlp import Mlp
from models.poses.base import Poses, PosesConfig
from models.samples import COLOR, MediumRendering, compact_indices, gather_padded
from models.shading.base import ShadingConfig
from models.structure import LayoutChange, refreshed
from models.volume import Medium, MediumConfig, VolumeConfig
from utils.config.parts import Choice, StrictModel
from utils.config.schema import COMPLETE
from utils.errors import InputError
from utils.random_stream import normal, uniform

if TYPE_CHECKING:
    from dataio.cameras import Rays
    from dataio.scene import Scene

# A medium is not evaluated behind less transmittance than this: it could not change an 8-bit color.
VISIBLE = 1e-3
COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


class ModelConfig(StrictModel):
    """A foreground medium, what lies behind it, and the color behind everything."""

    foreground: MediumConfig
    background: MediumConfig | None = Field(None, json_schema_extra={COMPLETE: ["neus_hash_open.yaml"]})
    background_color: Literal["data", "white", "black"] | tuple[float, float, float] = Field(
        "data", description="data: the color that the images were composited over, else black"
    )
    backdrop: Choice[BackdropConfig] | None = Field(
        None, description="learn the color behind everything; camera_frame: of what stands still before the camera"
    )
    poses: Choice[PosesConfig] | None = Field(None, description="learn corrections of the training cameras' poses")
    shading: Choice[ShadingConfig] | None = Field(
        None, description="from what a ray has accumulated to its color; null: that is the color"
    )

    @model_validator(mode="after")
    def _one_behind_the_other(self) -> ModelConfig:
        media = [self.foreground] + ([self.background] if self.background is not None else [])
        regions = [medium.bounds.region for medium in media]
        if len(set(regions)) < len(media) or (len(media) > 1 and EVERYWHERE in regions):
            raise ValueError(
                f"background.bounds and foreground.bounds both lie {regions[-1].words}: the two would fill the"
                " same stretch of every ray; expected foreground sphere, background outside"
            )
        if len(media) > 1 and not self.foreground.bounds.meets_outside:
            raise ValueError(
                f"background.bounds: {type_of(media[1].bounds)} begins at the unit sphere, where foreground.bounds:"
                f" {type_of(media[0].bounds)} does not end; expected foreground sphere, or no background"
            )
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> ModelConfig:
        wanted, name = (self.shading.channels, type_of(self.shading)) if self.shading else (COLOR, "none")
        media = {"foreground": self.foreground, "background": self.background}
        given: dict[str, int] = {}
        for key, medium in media.items():
            if medium is not None:
                given[key] = medium.appearance.channels
                within = {name: part for name, part in medium.sampler if isinstance(part, VolumeConfig)}
                given |= {f"{key}.sampler.{name}": part.appearance.channels for name, part in within.items()}
        refuse(
            f"{key}.appearance gives {count} channels, shading (type: {name}) takes {wanted}; expected"
            f" {key}.appearance: {{type: direct, count: {wanted}}} for a shading, or shading: null for colors"
            for key, count in given.items()
            if count != wanted
        )
        return self


def _built(config: MediumConfig, name: str, cameras: int) -> Medium:
    try:
        return Medium(config, cameras)
    except InputError as error:
        raise InputError(f"model.{name}: {error}") from error


class Model(nn.Module):
    """Media from near to far, and the color behind them. Raises InputError for networks that cannot be built."""

    background_color: Tensor

    def __init__(
        self, config: ModelConfig, *, data_color: tuple[float, float, float] | None = None, cameras: int = 0
    ) -> None:
        """data_color: what the images were composited over. cameras: how many the scene has, for their poses and for
        what is learned of single photographs.
        """
        super().__init__()
        self.poses: Poses | None = config.poses.build(cameras) if config.poses else None
        self.foreground = _built(config.foreground, "foreground", cameras)
        self.background = _built(config.background, "background", cameras) if config.background else None
        self.backdrop = config.backdrop.build(cameras) if config.backdrop else None
        self.shading = config.shading.build() if config.shading else None
        self.channels = config.shading.channels if config.shading else COLOR
        if self.shading is not None:
            self.foreground.shade = self.shading.forward
        self.capacity = Capacity(1) if config.background else None  # of the rays that reach the background
        color = config.background_color
        if color == "data":
            color = data_color or COLORS["black"]
        self.register_buffer("background_color", torch.tensor(COLORS[color] if isinstance(color, str) else color))

    @property
    def media(self) -> list[Medium]:
        """Near to far; the surface is in the first."""
        return [self.foreground] + ([self.background] if self.background is not None else [])

    @property
    def absent(self) -> frozenset[str]:
        """Names of the parts that this model does without."""
        parts = {
            "background": self.background,
            "backdrop": self.backdrop,
            "poses": self.poses,
            "shading": self.shading,
        }
        return frozenset(name for name, part in parts.items() if part is None)

    def forward(self, rays: Rays) -> Rendering:
        return self.render(self.posed(rays))

    def posed(self, rays: Rays) -> Rays:
        """The rays of the cameras as they are learned to be; differentiable in the corrections of their poses."""
        return rays if self.poses is None else self.poses(rays)

    def render(self, rays: Rays) -> Rendering:
        """The rays as they are, without a correction of their cameras; see `render_rays`."""
        composed = render_rays(rays, self.media, self.behind(rays), self.capacity)
        if self.shading is None:
            return composed
        proposed = None if composed.proposed is None else self.shaded(composed.proposed, rays.directions)
        return replace(composed, color=self.shaded(composed.color, rays.directions), proposed=proposed)

    def behind(self, rays: Rays) -> Tensor:
        """The color behind all media: [3], or [R, 3] of the backdrop. Differentiable in the backdrop's parameters."""
        return self.background_color if self.backdrop is None else self.backdrop(rays, self.background_color)

    def shaded(self, composed: Tensor, directions: Tensor) -> Tensor:
        """[R, 3] colors of what rays [R, 3] have composed, [R, C] or, where they met no medium, [R, 3].

        Differentiable in both and the parameters, once.
        """
        if self.shading is None:
            return composed
        lacking = self.channels - composed.shape[1]
        return self.shading(F.pad(composed, (0, lacking)) if lacking else composed, directions)

    def update(self, progress: float) -> None:
        """Follow the schedules. progress: share of the run that is done, in [0, 1]."""
        for medium in self.media:
            medium.update(progress)
        for part in (self.backdrop, self.shading):
            if part is not None:
                part.update(progress)

    def refresh(self, step: int, progress: float = 0.0) -> list[LayoutChange]:
        """Change what is due in layout, then bring the samplers' state up to date; returns the changes.

        Called before every training step, after `update` with the same progress, the same on every rank.
        """
        changes = list(refreshed(self, step, progress))
        if step % FIT_EVERY == 0:
            for capacity in (part for part in self.modules() if isinstance(part, Capacity)):
                capacity.fit()
        for medium in self.media:
            medium.sampler.refresh(medium, step)
        return changes

    def scale_demand(self, factor: float) -> None:
        """Have capacities be fitted to so many times the rays that were counted; before a step in which they are."""
        for capacity in (part for part in self.modules() if isinstance(part, Capacity)):
            capacity.demand.copy_((capacity.demand * factor).ceil())

    def initialize(self, scene: Scene | None = None) -> None:
        """Initialize what has no closed form; once, for a new run. scene: as of `Field.initialize`."""
        for medium in self.media:
            medium.field.initialize(scene)
        if self.backdrop is not None and scene is not None:
            self.backdrop.initialize(scene.cameras)

    def set_precision(self, *, mixed: bool) -> None:
        """mixed: in training, matrix products in bfloat16: of gradients, and of values where a part tolerates it."""
        for medium in self.media:
            parts = [*medium.field.modules(), *medium.appearance.modules()]
            for network in (part for part in parts if isinstance(part, Mlp)):
                network.mixed_vjp = mixed
            for network in medium.low_precision_networks():
                network.mixed = mixed

    def surface_value(self, points: Tensor) -> Tensor:
        """[*N, 3] scene frame -> [*N], zero on the surface, positive outside; scene units for an sdf.

        Differentiable in points and the parameters, once.
        """
        return self.foreground.surface_value(points)

    def gradient(self, points: Tensor) -> Tensor:
        """[*N, 3] gradient of the foreground's value, per scene unit, at points [*N, 3] in the scene frame.

        Differentiable in the parameters, once. Raises TypeError for a field without one.
        """
        gradient = self.foreground.field.gradient(points)
        if gradient is None:
            raise TypeError("this field has no gradient")
        return gradient

    def normal(self, points: Tensor) -> Tensor:
        """[*N, 3] unit vectors out of the object at points [*N, 3] in the scene frame: the direction of the gradient.

        Differentiable in the parameters, once. Raises TypeError for a field without a gradient.
        """
        # The small constant keeps the derivative finite at a gradient of exactly zero.
        gradient = self.gradient(points)
        length = (gradient.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        return self.foreground.opacity.outside_sign * gradient / length

    def random_gradient(self, count: int, device: torch.device) -> Tensor:
        """[N, 3] gradient of the foreground's value at `count` = N points, uniform in the unit ball; see `gradient`."""
        direction = torch.nn.functional.normalize(normal((count, 3), device), dim=-1)
        return self.gradient(direction * uniform((count, 1), device) ** (1 / 3))

    def statistics(self) -> dict[str, float]:
        """Learned scales, for the log."""
        return {k: v for medium in self.media for k, v in medium.opacity.statistics().items()}


@dataclass(frozen=True)
class Rendering:
    """R rays, rendered.

    color: [R, 3] in [0, 1]. opacity: [R] of the first medium, 1 - transmittance. depth: [R] mean ray distance
    (scene units) by the weights of all media, 0 where there are none. normal: [R, 3] weighted mean of unit gradients
    in the first medium, scene frame, not normalized. media: per medium its samples, for the losses; a medium behind
    others holds only the rays that reach it. proposed: [R, 3] the color by the media's proposals, None without any.
    overflowed: [] bool, whether samples or rays are missing that exceeded a capacity (`models.capacity`); None: there
    is none.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    media: list[MediumRendering]
    proposed: Tensor | None = None
    overflowed: Tensor | None = None


def render_rays(
    rays: Rays,
    media: Sequence[Callable[[Rays], MediumRendering]],
    background: Tensor,
    capacity: Capacity | None = None,
) -> Rendering:
    """Compose media from near to far over a background color, [3] or [R, 3].

    capacity: a stage for the rays that reach each medium but the first; None: as many as do.
    Differentiable in the parameters of all parts, and in origins and directions of the rays at fixed distances of the
    samples, once: colors, transmittances and depths are, normals are not.
    """
    fine, coarse, opacity = Accumulated.start(rays.near), None, torch.zeros_like(rays.near)
    parts: list[MediumRendering] = []
    stages = None if capacity is None else capacity.stages()
    for medium in media:
        transmittance = fine.transmittance
        if coarse is not None:
            transmittance = torch.maximum(transmittance, coarse.transmittance)
        reached = None
        if parts:
            visible = transmittance.detach() > VISIBLE
            reached = compact_indices(visible, None) if stages is None else stages.compact_indices(visible)
        part = medium(rays if reached is None else rays[reached.clamp_max(len(rays) - 1)])
        if part.proposal is not None or coarse is not None:
            coarse = (coarse or fine).through(part.proposal or part, reached)
        fine = fine.through(part, reached)
        opacity = opacity if parts else 1 - fine.transmittance
        parts.append(part)
    total = opacity if len(parts) == 1 else 1 - fine.transmittance
    depth = torch.where(total > VISIBLE, fine.sums[:, -4] / total.clamp_min(VISIBLE), torch.zeros_like(total))
    proposed = None if coarse is None else coarse.color(background)
    overflows = [part.samples.overflow() for part in parts] + [None if stages is None else stages.overflow()]
    known = [overflow for overflow in overflows if overflow is not None]
    overflowed = torch.stack(known).any() if known else None
    return Rendering(fine.color(background), opacity, depth, fine.sums[:, -3:].detach(), parts, proposed, overflowed)


@dataclass(frozen=True)
class Accumulated:
    """What R rays have accumulated so far.

    sums: [R, C + 4] color, ray distance and normal, each times the weight of its sample. transmittance: [R] in [0, 1],
    of all intervals so far.
    """

    sums: Tensor
    transmittance: Tensor

    @staticmethod
    def start(near: Tensor) -> Accumulated:
        """In front of the first medium: sums [R, 7] of zero, transmittance [R] of one, as `near` [R] is."""
        return Accumulated(near.new_zeros(len(near), COLOR + 4), torch.ones_like(near))

    def through(self, part: MediumRendering, reached: Tensor | None) -> Accumulated:
        """Behind a medium that the rays `reached` [K] go through; None: the first one, which all rays reach.

        The padding of `reached` (`models.samples.compact_indices`) goes to one row more than there are rays, which is
        dropped. Differentiable in what both have accumulated.
        """
        sums, transmittance = part.accumulate()
        if reached is None:
            return Accumulated(sums, transmittance)
        ahead, rays = gather_padded(self.transmittance, reached), len(self.transmittance)
        sums = F.pad(self.sums, (0, 0, 0, 1)).index_add(0, reached, ahead[:, None] * sums)
        behind = F.pad(self.transmittance, (0, 1)).index_copy(0, reached, ahead * transmittance)
        return Accumulated(sums[:rays], behind[:rays])

    def color(self, background: Tensor) -> Tensor:
        """[R, C] in front of a color, [3] or [R, 3], which only the first channels have. Differentiable in both."""
        further = self.sums.shape[1] - 4 - COLOR
        behind = F.pad(background, (0, further)) if further else background
        return self.sums[:, :-4] + self.transmittance[:, None] * behind
