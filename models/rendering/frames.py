"""Whole images from a model, in chunks of constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.model import Model
from models.rendering.surface import Surface

if TYPE_CHECKING:
    from dataio.cameras import Cameras


FIRST_CHUNK = {"cpu": 1 << 10, "cuda": 1 << 12}  # rays
LEAST_CHUNK = 256
SAMPLES = {"cpu": 1 << 16, "cuda": 1 << 19}  # at a time


@dataclass(frozen=True)
class Frame:
    """An image on the CPU.

    color: [H, W, 3] in [0, 1]. depth: [H, W] ray distance in scene units, 0 where the ray meets nothing. normal:
    [H, W, 3] scene frame, length at most 1. opacity: [H, W] of the foreground, in [0, 1].
    """

    color: Tensor
    depth: Tensor
    normal: Tensor
    opacity: Tensor


@torch.no_grad()
def render_image(model: Model | Surface, cameras: Cameras, index: int, *, samples: int | None = None) -> Frame:
    """The image of camera `index`; cameras in the scene frame, on the model's device.

    samples: about how many samples are in memory at a time, None: what suits the device; the number of rays in a chunk
    follows the samples that the last chunk's rays took. The image does not depend on it. A chunk that does not fit a
    GPU's memory is halved, and so are those after it; raises torch.OutOfMemoryError when that does not help.
    """
    width, height = (int(x) for x in cameras.size[index])
    pixels = cameras.pixel_grid(index)
    training = model.training
    model.eval()
    try:
        image = _render(model, cameras, index, pixels, samples or SAMPLES[pixels.device.type])
    finally:
        model.train(training)
    image = image.view(height, width, 8)
    return Frame(image[..., :3].clamp(0, 1), image[..., 3], image[..., 4:7], image[..., 7])


def _render(model: Model | Surface, cameras: Cameras, index: int, pixels: Tensor, samples: int) -> Tensor:
    """[P, 8] color, depth, normal and opacity at pixels [P, 2], on the CPU."""
    parts, done, rays = [], 0, FIRST_CHUNK[pixels.device.type]
    while done < len(pixels):
        at = pixels[done : done + rays]
        camera = torch.full((len(at),), index, dtype=torch.long, device=at.device)
        try:
            seen = model(cameras.rays(camera, at))
        except torch.OutOfMemoryError:
            if len(at) <= LEAST_CHUNK:
                raise
            seen = None
        if seen is None:  # what the exception held on to is free by now
            rays, samples = len(at) // 2, samples // 2
            torch.cuda.empty_cache()
            continue
        done += len(at)
        parts.append(torch.cat([seen.color, seen.depth[:, None], seen.normal, seen.opacity[:, None]], 1).cpu())
        taken = sum(part.tau.numel() for part in seen.media)
        rays = int(min(max(len(at) * samples / max(taken, 1), len(at) / 4, LEAST_CHUNK), 4 * len(at), 1 << 18))
    return torch.cat(parts)
