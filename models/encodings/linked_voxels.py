"""Voxels of which only some corners have numbers: links say which, and where they are (Plenoxels)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.capabilities import Offer
from models.cells import NOTHING, Cells
from models.encodings.factors import FactorConfig, FactorEncoding, resized
from models.encodings.growth import sides_of
from models.encodings.voxel_grid import VOXELS
from models.kernels.encodings.factors import Factors, factor_features, layout_of

WORD = 32  # corners of which one word of bits says whether they have a row
TOGETHER = 1 << 18  # new corners that are interpolated at once
BYTES_TO_LINK, BYTES_TO_SORT = 16, 32  # that a corner takes while rows are counted, and while the most seen are found
WIDE = 16  # numbers of a row that a CPU reads at once


class LinkedVoxelsConfig(FactorConfig):
    """As `voxel_grid`, with rows for some corners only; the others count as zeros and have no gradient.

    Fridovich-Keil, Yu et al., "Plenoxels" (2022), section 3.1.
    """

    type: Literal["linked_voxels"] = "linked_voxels"
    offers: ClassVar[frozenset[Offer]] = frozenset({VOXELS})
    axes: ClassVar[tuple[tuple[int, ...], ...]] = ((0, 1, 2),)
    together: ClassVar[int] = 1

    cells: int = Field(256, ge=2, le=1024, description="on each axis in the end")
    components: int = Field(1, ge=1, le=512, description="numbers at each corner")
    initial: float = Field(0.0, ge=0, description="numbers start normal, of this standard deviation")
    mean: float = Field(0.0, description="of the numbers at first; a corner without a row has zero")
    rows: int = Field(2_500_000, ge=8, description="corners that may have a row at once; at first all have one")

    @model_validator(mode="after")
    def _rows_suffice(self) -> LinkedVoxelsConfig:
        first = sides_of((self.cells,) * 3, self.growth, len(self.grow))[0]
        if self.rows < (corners := layout_of(self.axes, first)[1]):
            raise ValueError(f"rows: {self.rows:,} for the {corners:,} corners at first; expected at least as many")
        return self

    @property
    def table_rows(self) -> int:
        return min(self.rows, super().table_rows)

    @property
    def numbers(self) -> int:
        return (self.components + _padding(self.components)) * self.table_rows

    def lowered(self, share: float) -> str:
        return f"rows={int(share * self.table_rows)}"

    def build(self, dimensions: int = 3) -> LinkedVoxels:
        return LinkedVoxels(self)


class LinkedVoxels(FactorEncoding):
    """As `FactorEncoding`, of one grid. Rows stand in the order of their corners, then zeros that no point reads.

    bits: which corners have a row, the state. links: the same as kernels read it, see `Factors.links`. A row of more
    numbers than a register ends with zeros, up to whole registers.
    """

    whole = False
    bits: Tensor
    links: Tensor

    def __init__(self, config: LinkedVoxelsConfig) -> None:
        super().__init__(config)
        self.padding = _padding(config.components)
        self.table = nn.Parameter(F.pad(self.table.detach() + config.mean, (0, self.padding)))
        words = -(-layout_of(self.axes, self.sides[-1])[1] // WORD)
        self.register_buffer("bits", torch.zeros(words, dtype=torch.int32))
        self.register_buffer("links", torch.zeros(words, 2, dtype=torch.int32), persistent=False)
        self._said, self._left_out, self._seen = "", 0, torch.empty(0)
        self._link(torch.ones(self.corners, dtype=torch.bool))
        self.table.data[self.corners :] = 0
        self.register_load_state_dict_post_hook(_link_as_loaded)

    @property
    def cells(self) -> int:
        """On each axis, at present."""
        return self.sides[self.generation][0]

    @property
    def corners(self) -> int:
        """How many there are at present, with a row or without."""
        return (self.cells + 1) ** 3

    def factors(self) -> Factors:
        """As of `FactorEncoding`, with links."""
        return Factors(self.layout, self.resolution, self.box, self.together, links=self.links)

    def _read(self, features: Tensor) -> Tensor:
        return features[:, : features.shape[1] - self.padding]

    def _unread(self, weight: Tensor) -> Tensor:
        return F.pad(weight, (0, self.padding))

    def present(self) -> Tensor:
        """[n + 1, n + 1, n + 1] bool, which corners have a row; z, y, x."""
        places = torch.arange(WORD, dtype=torch.int32, device=self.bits.device)
        flat = ((self.bits[:, None] >> places) & 1).view(-1)[: self.corners].bool()
        return flat.view(3 * (self.cells + 1,))

    def positions(self, corner: Tensor) -> Tensor:
        """[K, 3] where corners [K] int64 lie, by their place in `present`; scene frame."""
        low, high = self.box.chunk(2)
        side = self.cells + 1
        place = torch.stack([corner % side, corner // side % side, corner // side**2], -1)
        return low + place / self.cells * (high - low)

    @torch.no_grad()
    def keep(self, wanted: Tensor) -> None:
        """Drop the rows of corners that are not wanted, [n + 1, n + 1, n + 1] bool as of `present`."""
        present = self.present()
        self._store(present & wanted, self.table[: int(present.sum())][wanted[present]])

    def prune(self, seen: Tensor, least: float) -> None:
        """Drop the rows of corners seen with a weight below `least`; as from `Field.refresh`.

        seen: [n + 1, n + 1, n + 1], indexed as `present`. A growth at the same time keeps the most seen where not all
        corners can have a row.
        """
        self.keep(seen >= least)
        self._seen = seen

    def refresh(self, progress: float) -> bool:
        """As `Encoding.refresh`: grow if it is time to; true after `prune` too."""
        pruned, grew = self._seen.numel() > 0, super().refresh(progress)
        self._seen = torch.empty(0)
        self._said = " and ".join(["pruned"] * pruned + ["grew"] * grew)
        return pruned or grew

    @torch.no_grad()
    def _grow(self) -> None:
        """A new corner has a row where those of the old that it lies between have one, so that nothing changes."""
        weight = self.present().float()
        if len(self._seen) == len(weight):
            weight *= self._seen
        new = self.sides[self.generation + 1]
        wanted = self._most(resized(weight[..., None], [side + 1 for side in new])[..., 0])
        old, self.generation = self.factors(), self.generation + 1
        corners = wanted.flatten().nonzero()[:, 0]
        values = [factor_features(self.positions(part), self.table, old) for part in corners.split(TOGETHER)]
        self.resolution.copy_(torch.tensor(new))
        self._store(wanted, torch.cat(values))

    def _most(self, weight: Tensor) -> Tensor:
        """Where weight [*N] is positive, bool [*N]; where it is greatest, if not all of these can have a row."""
        wanted = weight > 0
        self._left_out = max(int(wanted.sum()) - len(self.table), 0)
        if self._left_out:
            order = weight.flatten().argsort(descending=True, stable=True)[: len(self.table)]
            wanted = torch.zeros_like(wanted).view(-1).index_fill(0, order, True).view_as(wanted)
        return wanted

    def _store(self, present: Tensor, values: Tensor) -> None:
        """Give the corners `present`, indexed as of `present`, the rows values [K, F], in their order."""
        self.table[: len(values)] = values
        self.table[len(values) :] = 0
        self._link(present)

    def _link(self, present: Tensor) -> None:
        words = F.pad(present.flatten(), (0, len(self.bits) * WORD - present.numel())).view(-1, WORD)
        places = 1 << torch.arange(WORD, dtype=torch.int64, device=words.device)
        self.bits.copy_((words * places).sum(1).to(torch.int32))  # the highest bit is the sign
        counts = words.sum(1)
        self.links.copy_(torch.stack([self.bits, (counts.cumsum(0) - counts).to(torch.int32)], -1))

    def measures(self) -> dict[str, float]:
        """See `Encoding.measures`; a corner without a row is pruned, or was never in the hull."""
        rows = int(self.present().sum())
        return {"cells": float(self.cells), "rows": float(rows), "pruned_share": 1 - rows / self.corners}

    def cells_at(self, x: Tensor) -> Cells | None:
        """See `Encoding.cells_at`: a cell is there where its nearest corner has a row; of the box's shortest side."""
        low, high = self.box.chunk(2)
        place = ((x - low) / (high - low) * self.cells).round().long()
        within = ((place >= 0) & (place <= self.cells)).all(-1)
        i, j, k = place.clamp(0, self.cells).unbind(-1)
        side = (high - low).min().expand(x.shape[:-1]) / self.cells
        return Cells(torch.where(within & self.present()[k, j, i], 0, NOTHING), side)

    def bytes_of_change(self) -> int:
        """See `Encoding.bytes_of_change`: what is sorted, or rows that are written anew, with the bits of corners."""
        corners = layout_of(self.axes, self.sides[-1])[1]
        sorting = BYTES_TO_SORT if len(self.table) < corners and self.grow else 0
        return max(sorting * corners, 2 * self.table.nbytes + BYTES_TO_LINK * corners)

    def latest_change(self) -> str:
        """`grew`, `pruned` or both, the cells on each axis; how many rows there are, and their share of the corners."""
        count = int(self.present().sum())
        left_out = f"; {self._left_out:,} more than `rows` left out" if self._left_out else ""
        return f"{self._said} to {self.cells} cells: {count:,} rows, {count / self.corners:.1%} of the box{left_out}"


def _padding(components: int) -> int:
    """Zeros behind the numbers of a row."""
    return -components % WIDE if components > WIDE else 0


def _link_as_loaded(encoding: nn.Module, missing: object) -> None:
    """The links are those of the state. Raises ValueError for more rows than the table has."""
    assert isinstance(encoding, LinkedVoxels)
    present = encoding.present()
    if (count := int(present.sum())) > len(encoding.table):
        raise ValueError(f"{count} corners with rows - expected at most {len(encoding.table)}")
    encoding._link(present)
