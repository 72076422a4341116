"""The stream of a run's pixels, with the kernels that choose and gather them on a GPU; the data's side imports none."""

from __future__ import annotations

import torch

from dataio.batches import PixelSampler
from dataio.scene import Scene
from engine.cluster.shares import RankShare
from engine.experiment import ExperimentConfig
from models.kernels.pixels.order import order
from models.kernels.pixels.store import add_errors, cells, gradients, locate, rows
from models.kernels.pixels.systematic import systematic


class Kernels:
    """As `dataio.pictures.device_pixels.PixelKernels` has them."""

    order = staticmethod(order)
    systematic = staticmethod(systematic)
    locate = staticmethod(locate)
    rows = staticmethod(rows)
    gradients = staticmethod(gradients)
    cells = staticmethod(cells)
    add_errors = staticmethod(add_errors)


def open_sampler(config: ExperimentConfig, scene: Scene, share: RankShare, device: torch.device) -> PixelSampler:
    """The pixels of a run, from its beginning, in the memory that `data.device` names. Raises InputError.

    share: the rays of this rank's batches, of those before it and of all.
    """
    sampler = PixelSampler(
        scene,
        rays=share.own,
        seed=config.seed,
        pixels=config.train.pixels,
        before=share.before,
        total=share.total,
        device=device,
    )
    sampler.keep_on_device(Kernels(), config.data.device)
    return sampler


def share_out(sampler: PixelSampler, share: RankShare) -> None:
    """Have the sampler's batches be of this share's rays from here on."""
    sampler.resize(rays=share.own, before=share.before, total=share.total)
