"""Numbers at the corners of sparse voxels that are halved where the rendering asks: what such encodings share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.cells import NOTHING, Cells
from models.encodings import tree as trees
from models.encodings.base import Encoding, EncodingConfig
from models.encodings.frequency import Frequency, FrequencyConfig
from models.encodings.growth import Grow, due
from models.encodings.tree import Tree, first_tree, freed, halved, leaves_at, of_voxels
from models.feedback import Feedback, Observed
from models.kernels.encodings.tree import Voxels, tree_features, tree_features_with_vjp

MOST_OBSERVED = 128  # cells over the cube's side in which the rendering is observed
MOST_SIDE = 4096  # voxels over the cube's side at the deepest level
MOST_NUMBERS = 1 << 28
# Rows that are there for each voxel of the budget: halved voxels in a layer one voxel thick have 3/2 corners each.
ROWS_PER_VOXEL = 1.5
BYTES_OF_TREES = 400  # per voxel, while the tree before and the one after are there


class SparseVoxelsConfig(EncodingConfig):
    """Keys of all encodings by sparse voxels."""

    voxels: int = Field(32, ge=2, le=128, description="on each axis of the cube at first")
    components: int = Field(8, ge=1, le=512, description="numbers at each corner")
    grow: Grow = Field((), description="progresses at which voxels are halved on each axis")
    prune: Grow = Field(
        (), description="further progresses at which voxels are pruned: they are pruned before each halving too"
    )
    threshold: float = Field(
        1e-3,
        ge=0,
        le=1,
        description="a voxel is pruned, and never halved, when no sample of a training ray in it had this weight since"
        " the last pruning",
    )
    budget: int = Field(1 << 18, ge=8, le=1 << 26, description="voxels at most, of all sizes, the halved ones included")
    octaves: int = Field(0, ge=0, le=12, description="of sines and cosines of the interpolated numbers, beside them")
    initial: float = Field(0.1, ge=0, description="numbers start normal, of this standard deviation")

    @property
    def depth(self) -> int:
        """How often a voxel of those at first may be halved."""
        raise TypeError("an encoding by sparse voxels says how deep it is")

    @property
    def rows(self) -> int:
        """Of the table, for all of the run."""
        own = int(ROWS_PER_VOXEL * max(self.budget - self.voxels**3, 0)) if self.grow else 0
        return (self.voxels + 1) ** 3 + own

    @model_validator(mode="after")
    def _possible(self) -> SparseVoxelsConfig:
        if both := sorted(set(self.grow) & set(self.prune)):
            raise ValueError(f"`prune` should name other progresses than `grow`, which prunes too (both have {both})")
        if self.grow and self.budget < self.voxels**3 + 8:
            raise ValueError(f"a budget of {self.budget:,}; expected more than the {self.voxels**3:,} voxels at first")
        if self.voxels << self.depth > MOST_SIDE:
            raise ValueError(f"voxels of 1/{self.voxels << self.depth} of the cube's side; expected 1/{MOST_SIDE}")
        if self.numbers > MOST_NUMBERS:
            raise ValueError(f"a table of {self.numbers:,} numbers; expected at most {MOST_NUMBERS:,}: lower `budget`")
        return self

    @property
    def numbers(self) -> int:
        return self.components * self.rows

    def lowered(self, share: float) -> str:
        if not self.grow:
            return f"voxels={max(int(self.voxels * share ** (1 / 3)), 2)}"
        return f"budget={max(int(self.budget * share), self.voxels**3 + 8)}"

    def chosen(self, error: Tensor, leaves: Tensor) -> Tensor:
        """Which of the leaves [L] int64 to halve, most urgent first, for the color error [V] in each voxel."""
        raise TypeError("an encoding by sparse voxels says which are halved")

    def build(self, dimensions: int = 3) -> SparseVoxels:
        return SparseVoxels(self)


class SparseVoxels(Encoding):
    """[*N, 3] -> [*N, 3 + F (1 + 2 octaves)]: the point, the interpolated numbers, and maybe their sines and cosines.

    The numbers at a point are the sum of what the voxels around it say, from the largest to the smallest
    (`models/kernels/encodings/tree`). A halved voxel's new corners start as what is interpolated there, to which they
    add zero: no feature changes. The table has the rows of the end from the start; those in use stand first.
    """

    keeps_input = True
    first_child: Tensor
    corners: Tensor
    used: Tensor

    def __init__(self, config: SparseVoxelsConfig) -> None:
        super().__init__()
        self.config, self.side, self.looks = config, config.voxels, sorted({*config.grow, *config.prune})
        capacity = config.budget if config.grow else config.voxels**3
        self.register_buffer("first_child", torch.full((capacity,), trees.LEAF, dtype=torch.int32))
        self.register_buffer("corners", torch.full((capacity, 8), trees.NO_ROW, dtype=torch.int32))
        self.register_buffer("used", torch.zeros(3, dtype=torch.int64))  # voxels, rows, and looks so far
        self.table = nn.Parameter(torch.zeros(config.rows, config.components))
        self._keep(first_tree(self.side))
        with torch.no_grad():
            self.table[: self.used[1]].normal_(0, config.initial)
        self.waves = Frequency(FrequencyConfig(levels=config.octaves), config.components) if config.octaves else None
        self.width = 3 + (self.waves.width if self.waves else config.components)
        self.feedback = Feedback(self._observed()) if self.looks else None
        self._change = ""
        self.register_load_state_dict_post_hook(_follow_state)

    def _observed(self) -> int:
        """Cells over the cube's side in which the rendering is observed: the finest voxels that may be halved."""
        side = self.side
        while side < self.side << self.config.depth - 1 and 2 * side <= MOST_OBSERVED:
            side *= 2
        return side

    def tree(self) -> Tree:
        """The layout, on the CPU; to be called where a wait for a GPU does not matter."""
        voxels, rows, _ = self.used.tolist()
        children, corners = (x[:voxels].long().cpu() for x in (self.first_child, self.corners))
        return Tree(self.side, children, corners, rows)

    @torch.no_grad()
    def _keep(self, tree: Tree) -> None:
        count = len(tree.children)
        self.first_child[:count] = tree.children.to(self.first_child)
        self.corners[:count] = tree.corners.to(self.corners)
        self.used[:2] = torch.tensor([count, tree.rows])

    def _voxels(self) -> Voxels:
        return Voxels(self.first_child, self.corners, self.side)

    def forward(self, x: Tensor) -> Tensor:
        """[*N, 3] -> [*N, width]; see `Encoding`."""
        found = tree_features(x.reshape(-1, 3), self.table, self._voxels(), lead=3)
        if self.waves is not None:
            found = torch.cat([found[:, :3], self.waves(found[:, 3:])], -1)
        return found.reshape(*x.shape[:-1], self.width)

    def with_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """[*N, 3] -> [*N, width] and the vjp [*N, width] -> [*N, 3]; see `Encoding.with_vjp`."""
        found, vjp = tree_features_with_vjp(x.reshape(-1, 3), self.table, self._voxels(), lead=3)
        if self.waves is not None:
            found, vjp = self._waved(found, vjp)
        return (
            found.reshape(*x.shape[:-1], self.width),
            lambda weight: vjp(weight.reshape(-1, self.width)).reshape(x.shape),
        )

    def _waved(self, found: Tensor, vjp: Callable[[Tensor], Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Features [M, 3 + F] and their vjp -> those with waves, [M, width], and theirs."""
        assert self.waves is not None
        waved, waves_vjp = self.waves.with_vjp(found[:, 3:])
        return (
            torch.cat([found[:, :3], waved], -1),
            lambda weight: vjp(torch.cat([weight[:, :3], waves_vjp(weight[:, 3:])], -1)),
        )

    @torch.no_grad()
    def cover(self, low: Tensor, high: Tensor) -> None:
        """See `Encoding.cover`: voxels outside of the box are never halved."""
        tree = self.tree()
        (_, place), *_ = tree.levels()
        least = place * (2 / self.side) - 1
        outside = (least > high.cpu()) | (least + 2 / self.side < low.cpu())
        self._keep(freed(tree, outside.any(-1)))

    def refresh(self, progress: float) -> bool:
        """As `Encoding.refresh`: look at what was observed as often as is due, prune, and halve at the shares of grow.

        Returns whether any voxel was halved: pruning alone changes no feature.
        """
        done, wanted = self.generation, due(self.looks, progress)
        changes = [self._look(halve=look in self.config.grow) for look in self.looks[done:wanted]]
        return any(changes)

    def resampled(self) -> list[nn.Parameter]:
        """None: rows were added, and those that were there say what they said."""
        return []

    def _look(self, *, halve: bool) -> bool:
        """Prune and maybe halve by what was observed since the last look; returns whether any voxel was halved."""
        assert self.feedback is not None
        seen = self.feedback.read()
        self.feedback.reset()
        pruned = self._pruned(self.tree(), seen)
        tree = self._halved(pruned, seen) if halve else pruned
        self._keep(tree)
        self.used[2] += 1
        self.generation += 1
        return len(tree.children) > len(pruned.children)

    def _pruned(self, tree: Tree, seen: Observed) -> Tree:
        """Without the leaves of too little weight; all stay where nothing was observed."""
        if not seen.count.any():
            return tree
        return freed(tree, of_voxels(tree, seen.weight.cpu(), "largest") < self.config.threshold)

    def _halved(self, tree: Tree, seen: Observed) -> Tree:
        leaves = self._may_be_halved(tree)
        wanted = self.config.chosen(of_voxels(tree, seen.error.cpu(), "sum"), leaves)
        found = halved(tree, wanted[: (len(self.first_child) - len(tree.children)) // 8], len(self.table))
        new, of = len(found.children) - len(tree.children), len(self.first_child)
        self._change = f"halved {new // 8:,} of {len(leaves):,} voxels that are not free:"
        self._change += f" {len(found.children):,} voxels of {of:,}, {found.rows:,} corners"
        return found

    def _may_be_halved(self, tree: Tree) -> Tensor:
        """[L] int64, the leaves above the deepest level."""
        deepest = [voxels for depth, (voxels, _) in enumerate(tree.levels()) if depth >= self.config.depth]
        may = tree.children == trees.LEAF
        for voxels in deepest:
            may[voxels] = False
        return may.nonzero()[:, 0]

    def measures(self) -> dict[str, float]:
        """See `Encoding.measures`; the pruned share is of the voxels that were not halved."""
        tree = self.tree()
        whole = (tree.children < 0).sum()
        free = float((tree.children == trees.FREE).sum() / whole)
        found = {"voxels": float(len(tree.children)), "rows": float(tree.rows), "pruned_share": free}
        return {**found, "depth": float(sum(1 for _ in tree.levels()) - 1)}

    def cells_at(self, x: Tensor) -> Cells | None:
        """See `Encoding.cells_at`: the leaves, without those that are pruned."""
        tree = self.tree()
        voxel, depth = leaves_at(tree, x.cpu())
        return Cells(torch.where(tree.children[voxel] == trees.FREE, NOTHING, depth), 2 / (self.side * 2.0**depth))

    def bytes_of_change(self) -> int:
        """See `Encoding.bytes_of_change`: trees of numbers of 64 bits, with corners that are sorted."""
        return BYTES_OF_TREES * len(self.first_child) if self.looks else 0

    def latest_change(self) -> str:
        """`halved`, how many, and how many there are now."""
        return self._change


def _follow_state(encoding: nn.Module, missing: object) -> None:
    """The layout is that of the state, whatever the progress. Raises ValueError for one that cannot be."""
    assert isinstance(encoding, SparseVoxels)
    voxels, rows, looks = encoding.used.tolist()
    most = len(encoding.first_child), len(encoding.table), len(encoding.looks)
    if not (encoding.side**3 <= voxels <= most[0] and 0 <= rows <= most[1] and 0 <= looks <= most[2]):
        raise ValueError(f"{voxels:,} voxels, {rows:,} rows after {looks} looks - expected at most {most}")
    trees.checked(encoding.tree())
    encoding.generation = looks
