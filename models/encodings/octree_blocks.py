"""Small lattices of features in the blocks of an octree, emitted by a network of where a block lies (ACORN)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.cells import Cells
from models.encodings.base import Encoding, EncodingConfig
from models.encodings.frequency import Frequency, FrequencyConfig
from models.encodings.growth import Grow, due
from models.encodings.octree import CHILDREN, Octree, first_nodes
from models.encodings.tiling import best_changes, expected
from models.feedback import Feedback
from models.kernels.encodings.factors import Factors, factor_features, factor_features_with_vjp, layout_of
from models.networks.mlp import Mlp, MlpConfig

MOST_NUMBERS = 1 << 28
LOOKS = 1000  # in a run, at what rendering says about the blocks
MEMORY = 0.95  # of the moving average, from look to look
UNUSED = -1  # level of a block that is not in use
UNKNOWN = -1.0  # error of a node that has not been a block


class OctreeBlocksConfig(EncodingConfig):
    """Blocks of an octree, planned anew during a run. Martel et al., "ACORN" (2021)."""

    type: Literal["octree_blocks"] = "octree_blocks"
    blocks: int = Field(1024, ge=1, le=1 << 16, description="in use at most")
    first: int = Field(3, ge=0, le=5, description="level of all blocks at first: 2^this on each axis of the cube")
    deepest: int = Field(6, ge=1, le=7, description="level of the smallest blocks there may be")
    corners: int = Field(12, ge=2, le=32, description="of a block's lattice, on each axis")
    features: int = Field(18, ge=1, le=64, description="at each corner")
    octaves: int = Field(6, ge=0, le=20, description="sines and cosines of a block's place, as of `frequency`")
    network: MlpConfig = Field(MlpConfig(layers=5, width=512), description="from a block's place to its lattice")
    initial: float = Field(1.0, gt=0, description="features start with about this standard deviation")
    plan: Grow = Field((), description="progresses at which the blocks are planned anew, where the error is")
    remember: bool = Field(
        False, description="cost of a split or merge: the error when those were last the blocks; published: true"
    )

    @model_validator(mode="after")
    def _fits(self) -> OctreeBlocksConfig:
        if self.first > self.deepest:
            raise ValueError(f"`first` should be at most `deepest`, {self.deepest} (got {self.first})")
        if CHILDREN**self.first > self.blocks:
            raise ValueError(f"`blocks` should be at least {CHILDREN**self.first}, those of level {self.first}")
        if (numbers := self.blocks * self.corners**3 * self.features) > MOST_NUMBERS:
            raise ValueError(f"lattices of {numbers:,} numbers; expected at most {MOST_NUMBERS:,}: lower `corners`")
        return self

    def build(self, dimensions: int = 3) -> OctreeBlocks:
        return OctreeBlocks(self)


class OctreeBlocks(Encoding):
    """[*N, 3] in [-1, 1]^3 -> [*N, 3 + features]: the point itself, then features interpolated within its block.

    A network takes a block's center and level and emits the features at the corners of the block's lattice. Blocks that
    touch share no corner, so that features jump from one to the next. Which blocks there are is planned anew at the
    shares `plan` of a run (`tiling`), by what each contributes to the color error; the network then has an answer for
    the new ones, and nothing is resampled. Differentiable in the points, and the network's parameters, as
    `FactorEncoding`.
    """

    keeps_input = True
    levels: Tensor
    counted: Tensor
    average: Tensor
    known: Tensor
    layout: Tensor
    resolution: Tensor
    box: Tensor
    place: Tensor
    center: Tensor
    per_half_side: Tensor
    block_of: Tensor
    copy: Tensor

    def __init__(self, config: OctreeBlocksConfig) -> None:
        super().__init__()
        self.config, self.side = config, 2**config.deepest
        self.width, self.rows = 3 + config.features, config.corners**3
        self.octaves = Frequency(FrequencyConfig(levels=config.octaves), dimensions=4)
        self.network = Mlp(self.octaves.width, self.rows * config.features, config.network)
        if config.network.activation != "sine":  # whose weights are drawn as sines need them
            _draw(self.network, config.initial)
        self.feedback = Feedback(self.side)
        for name, buffer in _state(config):
            self.register_buffer(name, buffer)
        for name, buffer in _derived(config, self.octaves.width):
            self.register_buffer(name, buffer, persistent=False)
        self._emitted: int | None = None  # by which parameters, in which layout
        self._looks = 0
        self._lay_out(Octree.uniform(config.first, config.deepest))
        self.register_load_state_dict_post_hook(_read_layout)

    @torch.no_grad()
    def _lay_out(self, tree: Octree) -> None:
        """Take the blocks of a tree; their numbers are those of its leaves."""
        self.tree, count, device = tree, len(tree), self.levels.device
        center, half = torch.from_numpy(tree.centers()).float(), torch.from_numpy(tree.half_sides()).float()
        level = torch.from_numpy(tree.levels)
        self.levels.fill_(UNUSED)[:count] = level.to(device)
        self.center[:count], self.per_half_side[:count] = center.to(device), 1 / half[:, None].to(device)
        scale = (2 * level / tree.deepest - 1).float()[:, None]
        self.place[:count] = self.octaves(torch.cat([center, scale], -1)).to(device)
        self.block_of.copy_(torch.from_numpy(tree.lattice()).flatten())
        self._emitted = None

    def _emit(self, place: Tensor) -> Tensor:
        """[B, P] places of blocks -> [B corners^3, F], the rows of their lattices."""
        return self.network(place).view(-1, self.config.features)

    @torch.no_grad()
    def _read(self) -> Tensor:
        """The rows of all blocks, always at the same place, made anew when network or layout have changed."""
        of = hash(tuple((p.data_ptr(), p._version) for p in self.network.parameters()) + (self.copy.data_ptr(),))
        if self._emitted != of:
            count = len(self.tree)
            self.copy[: count * self.rows] = self._emit(self.place[:count])
            self._emitted = of  # by now: other threads may ask
        return self.copy

    def _table(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B corners^3, F] of blocks, and for each of `block` [M] which of these it is.

        With a graph those of the blocks that are asked for; on a GPU all, since it would have to count them.
        """
        if not torch.is_grad_enabled():
            return self._read(), block
        if block.device.type != "cpu":
            return self._emit(self.place), block
        used = torch.zeros(len(self.place), dtype=torch.bool)
        used[block] = True
        return self._emit(self.place[used]), (used.cumsum(0) - 1)[block]

    def _block_at(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N] the blocks that points lie in."""
        cell = ((x + 1) * (self.side / 2)).clamp(0, self.side - 1).long()
        return self.block_of[(cell[..., 0] * self.side + cell[..., 1]) * self.side + cell[..., 2]]

    def _within(self, x: Tensor) -> tuple[Tensor, Tensor, Factors, Tensor]:
        """Of points [M, 3] their places in their blocks, in [-1, 1]^3; rows, and how to read them; the blocks [M]."""
        block = self._block_at(x.detach())
        table, number = self._table(block)
        factors = Factors(self.layout, self.resolution, self.box, 1, base=(number * self.rows).int())
        return (x - self.center[block]) * self.per_half_side[block], table, factors, block

    def features(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, F]; see `Encoding.features`."""
        local, table, factors, _ = self._within(x.reshape(-1, 3))
        return factor_features(local, table, factors).reshape(*x.shape[:-1], self.width - 3)

    def forward(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width]; see `Encoding`."""
        return torch.cat([x, self.features(x)], -1)

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[*N, 3] -> [*N, width] and the vjp [*N, width] -> [*N, 3]; see `Encoding.with_vjp`."""
        local, table, factors, block = self._within(x.reshape(-1, 3))
        features, local_vjp = factor_features_with_vjp(local, table, factors)
        per_half_side = self.per_half_side[block]

        def vjp(weight: Tensor) -> Tensor:
            rows = weight.reshape(-1, self.width)
            return (rows[:, :3] + local_vjp(rows[:, 3:]) * per_half_side).reshape(x.shape)

        return torch.cat([x, features.reshape(*x.shape[:-1], self.width - 3)], -1), vjp

    def update(self, progress: float) -> None:
        self._read()

    def refresh(self, progress: float) -> bool:
        """As `Encoding.refresh`: look at the errors a thousand times in a run, and plan anew when it is time to."""
        looks, wanted = int(progress * LOOKS), due(self.config.plan, progress)
        if looks > self._looks:
            self._look(looks)
        if wanted <= self.generation:
            return False
        self._plan()
        self.generation = wanted  # several at once are one
        self.counted[1] = wanted
        self._read()
        return True

    @torch.no_grad()
    def _look(self, looks: int) -> None:
        """Average what share of the color error each of the finest cells has; without synchronization."""
        error = self.feedback.read().error
        self.feedback.reset()
        self.average.lerp_(error / error.sum().clamp_min(1e-30), 1 - MEMORY)
        self.counted[0] = self._looks = looks

    def _plan(self) -> None:
        """The blocks of the least cost, one level finer or coarser; the same on every rank."""
        tree = self.tree
        known = self.known.cpu().numpy() if self.config.remember else np.full(len(self.known), UNKNOWN)
        known[tree.nodes] = tree.sums(self.average.cpu().numpy())
        self.known.copy_(torch.from_numpy(known))
        costs = expected(tree, np.where(known == UNKNOWN, np.nan, known))
        change = best_changes(tree, costs, self.config.blocks)
        self._said = f"{(change == 1).sum()} split, {(change == -1).sum() // CHILDREN} merged"
        self._lay_out(tree.changed(change))

    def measures(self) -> dict[str, float]:
        """See `Encoding.measures`."""
        level = self.tree.levels
        return {"blocks": float(len(level)), "depth": float(level.max()), "least_depth": float(level.min())}

    def cells_at(self, x: Tensor) -> Cells | None:
        """See `Encoding.cells_at`: the blocks, which fill the cube."""
        depth = self.levels[self._block_at(x)].long()
        return Cells(depth, 2 / 2.0**depth)

    def latest_change(self) -> str:
        """How many blocks there are, of which levels, and how many were split and merged from eight."""
        level = self.tree.levels
        return f"has {len(level)} blocks of levels {level.min()} to {level.max()} ({self._said})"


@torch.no_grad()
def _draw(network: Mlp, initial: float) -> None:
    """Weights that keep the size of activations through relus, as published, and outputs of about size `initial`.

    He et al., "Delving Deep into Rectifiers" (2015), section 2.2.
    """
    *hidden, last = network.linears()
    for layer, size in [*((layer, math.sqrt(2)) for layer in hidden), (last, initial)]:
        weight = torch.randn_like(layer.direction) * (size / math.sqrt(layer.direction.shape[1]))
        layer.set(weight, layer.bias * (initial if layer is last else 1.0))


def _state(config: OctreeBlocksConfig) -> Iterator[tuple[str, Tensor]]:
    """What is saved of a layout: the levels of its blocks, in Morton order; looks and plans so far; the errors, of the
    finest cells as a moving average, and of all nodes when they were last blocks at a plan, -1 for never.
    """
    side = 2**config.deepest
    yield "levels", torch.full((config.blocks,), UNUSED, dtype=torch.int8)
    yield "counted", torch.zeros(2, dtype=torch.int64)
    yield "average", torch.zeros(side, side, side, dtype=torch.float64)
    yield "known", torch.full((int(first_nodes(config.deepest)[-1]),), UNKNOWN, dtype=torch.float64)


def _derived(config: OctreeBlocksConfig, width: int) -> Iterator[tuple[str, Tensor]]:
    """What follows from the state and the parameters, at its final size."""
    layout, rows = layout_of([(0, 1, 2)], (config.corners - 1,) * 3)
    yield "layout", layout
    yield "resolution", torch.full((3,), config.corners - 1, dtype=torch.int32)
    yield "box", torch.tensor([-1.0, -1, -1, 1, 1, 1])
    yield "place", torch.zeros(config.blocks, width)
    yield "center", torch.zeros(config.blocks, 3)
    yield "per_half_side", torch.ones(config.blocks, 1)
    yield "block_of", torch.zeros(CHILDREN**config.deepest, dtype=torch.int64)
    yield "copy", torch.zeros(config.blocks * rows, config.features)


def _read_layout(encoding: nn.Module, missing: object) -> None:
    """The layout is that of the state, whatever the progress. Raises ValueError for one that cannot be."""
    assert isinstance(encoding, OctreeBlocks)
    levels = encoding.levels.cpu().numpy()
    used = levels[levels != UNUSED]
    if (levels[len(used) :] != UNUSED).any():
        raise ValueError("blocks of an octree with gaps between them - expected those in use first")
    encoding._lay_out(Octree.of(used, encoding.config.deepest))
    encoding._looks, encoding.generation = (int(n) for n in encoding.counted)
