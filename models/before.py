"""What a background has between the cameras and the unit sphere, where the foreground begins."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.samples import MediumRendering, compact_indices

if TYPE_CHECKING:
    from dataio.cameras import Rays
    from models.capacity import Stages
    from models.volume import Medium

INWARD = 1 - 1e-4  # of a point at which a ray enters the sphere


class Before:
    """The ground that a camera looks over to the sphere, and whatever else stands there.

    A ray that begins to be rendered beneath a surface, where it enters the sphere or, if it misses it, is closest to
    its center, has met that surface before. Such rays alone have a piece in front, so that nothing can float before
    a camera. A camera is never inside of things: on its way out of them nothing is lost.
    """

    def __init__(self, foreground: Medium, background: Medium) -> None:
        self.foreground, self.background = foreground, background

    def __call__(self, rays: Rays, stages: Stages | None) -> tuple[MediumRendering, Tensor]:
        """The pieces in front of the rays [K] that have one, rendered, and their indices.

        stages: of a capacity, of which one is taken; None: as many as there are.
        """
        background = self.background
        pieces, drawn = background.bounds.before(rays), background.sampler.drawn(rays)
        beneath = self._beneath(pieces)
        index = compact_indices(beneath, None) if stages is None else stages.compact_indices(beneath)
        place = index.clamp_max(len(rays) - 1)
        found = background.render(background.sampler.placed(pieces[place], background, drawn[place]))
        free = found.field.value.detach() * background.opacity.outside_sign > background.opacity.surface_level
        return replace(found, tau=found.tau * free.cummax(-1).values), index

    @torch.no_grad()
    def _beneath(self, pieces: Rays) -> Tensor:
        """[R] bool, whether pieces end beneath a surface of either medium."""
        end = pieces.at(pieces.far[:, None])[:, 0]
        within = self.foreground.bounds.contains(end * INWARD)
        behind = self.background.surface_value(end)
        value = torch.where(within, torch.minimum(self.foreground.surface_value(end), behind), behind)
        return (value <= 0) & (pieces.far > pieces.near)
