"""Reduce the learning rate when the loss stays where it is."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from utils.config.parts import StrictModel


class PlateauConfig(StrictModel):
    """Looks at the mean loss of every `window` steps; after `patience` windows without a new best, reduces the rate."""

    factor: float = Field(0.5, gt=0, lt=1, description="what the rate is multiplied by")
    window: int = Field(500, ge=1, description="steps")
    patience: int = Field(4, ge=1, description="windows")
    threshold: float = Field(1e-3, ge=0, lt=1, description="share of the best by which a new best is less")
    least: float = Field(0.01, gt=0, le=1, description="the rate is never multiplied by less than this")


class Plateau:
    """The factor that the learning rates are multiplied by; the same on all ranks, a function of all losses so far."""

    def __init__(self, config: PlateauConfig) -> None:
        self.config = config
        self.scale = 1.0
        self._best: float | None = None
        self._waited = self._count = 0
        self._total = 0.0

    def observe(self, loss: float) -> None:
        """Take in the finite loss of one step, the mean over all ranks: so the state is the same on each of them."""
        self._total += loss
        self._count += 1
        if self._count == self.config.window:
            self._compare(self._total / self._count)
            self._count, self._total = 0, 0.0

    def _compare(self, mean: float) -> None:
        if self._best is None or mean < self._best - abs(self._best) * self.config.threshold:
            self._best, self._waited = mean, 0
            return
        self._waited += 1
        if self._waited >= self.config.patience:
            self.scale, self._waited = max(self.scale * self.config.factor, self.config.least), 0

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        kept = {"scale": self.scale, "best": self._best, "waited": self._waited}
        return {**kept, "count": self._count, "total": self._total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.scale, self._best, self._waited = float(state["scale"]), state["best"], int(state["waited"])
        self._count, self._total = int(state["count"]), float(state["total"])
