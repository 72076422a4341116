"""Rendered normals against those of a predictor, or a sensor."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from models.capabilities import GRADIENT, Offer
from models.losses.base import DataNeeds, LossConfig, Step


class NormalLoss(LossConfig):
    """|n - n'|_1 + |1 - n . n'| of the mean normal of a ray and the photograph's, mean over rays with one.

    Weighed by the photographs' confidence where there is one, and by the ray's opacity, so that a ray that meets
    nothing is not turned. Yu et al., "MonoSDF" (2022), eq. 14. The gradient of a rendered normal does not reach the
    weights of samples: it turns the surface where the ray meets it.
    """

    type: Literal["normal"] = "normal"
    needs: ClassVar[frozenset[Offer]] = frozenset({GRADIENT})

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(pixels=("normal",))

    def __call__(self, step: Step) -> Tensor:
        target, part = step.batch.pixel("normal"), step.rendering.media[0]
        gradient = part.field.gradient
        if target is None or gradient is None:
            return step.rendering.opacity.new_zeros(())
        weight = part.weight().detach()
        along = part.samples.total(F.normalize(part.outward * gradient, dim=-1) * weight[..., None])
        normal, opacity = F.normalize(along, dim=-1), step.rendering.opacity.detach()
        off = (normal - target).abs().sum(-1) + (1 - (normal * target).sum(-1)).abs()
        trusted, confidence = opacity * step.batch.known("normal"), step.batch.pixel("confidence")
        trusted = trusted if confidence is None else trusted * confidence
        return step.mean(off * trusted, step.batch.total("normal"))
