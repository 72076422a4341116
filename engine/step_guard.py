"""Steps of an optimizer that are not taken, decided and counted on the device, so that a host need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SkippedSteps:
    """What was skipped since the last look; in_a_row: steps with broken numbers up to and with the last one."""

    broken: int
    in_a_row: int
    cut: int


class Skipping:
    """Says to a fused optimizer whether a step counts."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)

    @torch.no_grad()
    def tell(self, optimizer: torch.optim.Optimizer, *, broken: Tensor, cut: Tensor) -> None:
        """Let the next step of `optimizer` change nothing where one of both [] bool is true.

        broken: a number is not finite. cut: nothing is wrong with the model, but the step saw a part of its rays.
        """
        optimizer.found_inf = (broken | cut).float()  # type: ignore[attr-defined]  # as torch's GradScaler does
        self._counts += torch.stack([broken, broken, cut])
        self._counts[1] *= broken

    def look(self) -> SkippedSteps:
        """Since the last look; waits for a GPU."""
        broken, in_a_row, cut = self._counts.tolist()
        self._counts[::2] = 0
        return SkippedSteps(broken, in_a_row, cut)
