"""A rendering from its frames to its files: continued where it was stopped, shared by ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.rendering.outputs import say_depths, write_depth, write_outputs, write_sheet
from engine.rendering.painter import Painter
from engine.rendering.work import Work
from utils.distributed import Ranks, barrier
from utils.run_lock import RunLock

LOOK_AGAIN = 0.2  # seconds


@dataclass(frozen=True)
class Session:
    """What is made: frames in `pictures`, and in `depths` where that is wanted, then outputs of all of them.

    columns: of panels in a sheet. scale, units: of depths. kept: whether the frames themselves were asked for.
    """

    painter: Painter
    pictures: Work
    depths: Work | None
    columns: int
    scale: float
    units: str
    kept: bool

    def run(self, ranks: Ranks, outs: Sequence[Path], fps: float) -> int:
        """Make what is missing; returns how many frames were there already, 0 but on the main rank.

        The others end when their share is drawn. Raises InputError and StorageError.
        """
        locks, there = self._begin() if ranks.is_main else ([], 0)
        barrier()
        self.draw(ranks)
        if ranks.is_main:
            self._wait()
            write_outputs(self.pictures, outs, fps)
            for lock in locks:
                lock.release()
            if not self.kept:
                self.pictures.clear()
        return there

    def _begin(self) -> tuple[list[RunLock], int]:
        """The locks of the folders, made ready, and how many frames are in them."""
        works = [self.pictures] + ([self.depths] if self.depths is not None else [])
        locks = [work.lock() for work in works]
        for work in works:
            work.begin()
        if self.depths is not None:
            say_depths(self.depths.folder, self.scale, self.units)
        return locks, len(self.pictures.names) - len(list(self.missing(0, 1)))

    def _wait(self) -> None:
        """Until other ranks' frames are there: by their files, since a collective would not wait for a long frame."""
        while next(self.missing(0, 1), None) is not None:
            time.sleep(LOOK_AGAIN)

    def draw(self, ranks: Ranks) -> None:
        """This rank's share of the missing frames, each written before the next one is begun."""
        from tqdm import tqdm

        mine = list(self.missing(ranks.rank, ranks.world))
        for index in tqdm(mine, desc="render", unit="frame", disable=None if ranks.is_main else True):
            painted = self.painter(index)
            if self.depths is not None and painted.depth is not None:
                write_depth(self.depths, index, painted.depth, self.scale)
            write_sheet(self.pictures.file(index), painted.panels, self.columns)

    def missing(self, rank: int, world: int) -> Iterator[int]:
        """The frames of a rank among `world` that are not there yet: every `world`-th from its own number on."""
        for index in range(rank, len(self.pictures.names), world):
            if not self.pictures.has(index) or not (self.depths is None or self.depths.has(index)):
                yield index
