"""Rays that stand patch by patch, as squares of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    pass


def in_patches(per_ray: Tensor, patch: int | None) -> Tensor:
    """[R, C] of rays that stand patch by patch, row by row -> [P, C, H, W], H = W = patch. Differentiable in per_ray.

    Raises TypeError for a batch without patches.
    """
    if patch is None:
        raise TypeError("a loss on patches needs a batch of patches")
    return per_ray.view(len(per_ray) // patch**2, patch, patch, per_ray.shape[-1]).movedim(-1, 1)
