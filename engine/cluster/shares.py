"""How a step's rays are shared out among ranks."""

from __future__ import annotations

from dataclasses import dataclass

from engine.experiment import ExperimentConfig
from utils.distributed import Ranks
from utils.errors import InputError


@dataclass(frozen=True)
class RankShare:
    """The rays of one rank's step: `own` of them, after the `before` of the ranks before it, of `total` in all.

    largest: those of the rank that has most.
    """

    before: int
    own: int
    total: int
    largest: int


def share_of(config: ExperimentConfig, ranks: Ranks, *, rays: int) -> RankShare:
    """This rank's share: as many rays as others to one patch, or to one ray where there are none.

    rays: of a step of all ranks, or of each, as `distributed.rays` says; whole patches. Raises InputError where there
    are fewer rays, or patches, than ranks.
    """
    train, rank, world = config.train, ranks.rank, ranks.world
    if config.distributed.rays == "rank":
        return RankShare(rays * rank, rays, rays * world, rays)
    patches = rays // train.patch_area
    if patches < world:
        what = "patches" if train.patch_area > 1 else "rays"
        given = f"train.rays: {rays}" if train.samples is None else f"train.samples: {train.samples}"
        raise InputError(
            f"{given} - got {patches} {what} for {world} ranks - expected at least one for each, or"
            " distributed.rays=rank"
        )
    first, last = (patches * number // world * train.patch_area for number in (rank, rank + 1))
    return RankShare(first, last - first, rays, -(-patches // world) * train.patch_area)
