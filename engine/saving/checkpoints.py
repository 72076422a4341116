"""When a run saves, and what becomes of it: one checkpoint at a time, written beside the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.experiment import TrainConfig
from engine.saving.writer import CheckpointWriter
from utils import distributed
from utils.checkpoint import Keep
from utils.errors import StorageError

MAX_FAILED_SAVES = 3  # in a row
LOOK_EVERY = 16  # steps between two looks at clocks and threads, for which ranks have to agree
SLOW_SECONDS = 60.0  # after which storage that has not taken a checkpoint is spoken of


class Saving:
    """The checkpoints of a run: when one is due, whether it stands, how often the disk has refused.

    The main rank writes; the others learn from it how each ended, so that all go on or stop together. Methods are
    called by all ranks at the same step.
    """

    def __init__(
        self, train: TrainConfig, folder: Path, ranks: distributed.Ranks, say: Callable[[str], None]
    ) -> None:
        """folder: of the run. say: called with a line, which only the main rank shows."""
        self.train, self.ranks, self.say = train, ranks, say
        self.writer = CheckpointWriter(folder / "checkpoints")
        self.begun_at = time.perf_counter()  # of the newest one
        self.under_way: int | None = None  # step
        self.newest: int | None = None  # step of the newest one that this process has brought to its end
        self.failed, self.spoke = 0, False

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint, by steps or by the clock; sees now and then how the one before went."""
        if step % LOOK_EVERY == 0:
            self.settle(wait=False)
        if self.train.checkpoint_every:
            return step % self.train.checkpoint_every == 0
        late = time.perf_counter() - self.begun_at > 60 * self.train.checkpoint_minutes
        return step % LOOK_EVERY == 0 and distributed.any_rank(late)

    def begin(self, step: int, state: dict[str, Any], *, best: bool) -> None:
        """Begin to write a checkpoint, which `state` is copied for; none may be under way. best: as in `Keep`."""
        if self.ranks.is_main:
            keep = Keep(self.train.keep_checkpoints, self.train.keep_every, best)
            self.writer.begin(step, state, info={"world": self.ranks.world}, keep=keep)
        self.under_way, self.spoke, self.begun_at = step, False, time.perf_counter()

    def settle(self, *, wait: bool, tries: int = MAX_FAILED_SAVES) -> None:
        """See whether the checkpoint under way stands, with `wait` not before it has come to its end.

        A disk that refuses is a warning, so that it can be freed; from the `tries`-th refusal in a row on raises
        StorageError, on every rank.
        """
        if self.under_way is None:
            return
        refused: StorageError | None = None
        try:
            ended = self._ended(wait) if self.ranks.is_main else True
        except StorageError as error:
            refused, ended = error, True
        if distributed.any_rank(not ended):
            return
        if distributed.any_rank(refused is not None):
            self._count(refused or StorageError(f"{self.writer.folder}: the main rank could not write"), tries)
        else:
            self.newest, self.failed = self.under_way, 0
        self.under_way = None

    def close(self) -> None:
        """Wait for the checkpoint under way, by each rank alone, whatever else went wrong; a refusal is a warning."""
        try:
            if self.under_way is not None and self.ranks.is_main:
                self._ended(wait=True)
        except StorageError as error:
            self.say(f"warning: {error}")
        self.under_way = None

    def _count(self, refused: StorageError, tries: int) -> None:
        self.failed += 1
        if self.failed >= tries:
            self.under_way = None
            raise refused
        self.say(f"warning: {refused} - going on, {tries - self.failed} more tries")
        self.begun_at = time.perf_counter()

    def _ended(self, wait: bool) -> bool:
        """Whether the thread has done its work; raises its error. Slow storage is spoken of, once per checkpoint."""
        left = max(SLOW_SECONDS - (time.perf_counter() - self.begun_at), 0.0)
        ended = self.writer.wait(left if wait else 0.0)
        if not ended and (wait or not left) and not self.spoke:
            self.spoke = True
            self.say(
                f"warning: {self.writer.folder}: the checkpoint of step {self.under_way} is not written after"
                f" {SLOW_SECONDS:.0f} s: the storage is slow or hangs - {'waiting for it' if wait else 'going on'}"
            )
        return ended or (wait and self.writer.wait())
