"""Steps of an optimizer that are not taken: decided and counted on the device, so that the host need not wait for it.

As torch's GradScaler does it: a fused optimizer reads `found_inf` on the device, and changes nothing where it is set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class NumbersError(ArithmeticError):
    """Losses, parameters or the optimizer's state are no longer finite."""


@dataclass(frozen=True)
class SkippedSteps:
    """Steps that were skipped since the last report.

    not_finite: a loss or gradient was not finite. in_a_row: such steps up to and with the last one. overflowed: samples
    exceeded the static capacity (`models.capacity`).
    """

    not_finite: int
    in_a_row: int
    overflowed: int


class StepGuard:
    """Decides on the device whether a step of a fused optimizer counts, and counts those that do not."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)

    @torch.no_grad()
    def guard(self, optimizer: torch.optim.Optimizer, *, not_finite: Tensor, overflowed: Tensor) -> None:
        """Let the next step of `optimizer` change nothing where one of the two is true; both [] bool.

        not_finite: the loss or a gradient is not. overflowed: the step saw only a part of its samples, with nothing
        wrong in the model.
        """
        optimizer.found_inf = (not_finite | overflowed).float()  # type: ignore[attr-defined]
        self._counts += torch.stack([not_finite, not_finite, overflowed])
        self._counts[1] *= not_finite

    def report(self) -> SkippedSteps:
        """Counts since the last report; synchronizes with a GPU."""
        not_finite, in_a_row, overflowed = self._counts.tolist()
        self._counts[::2] = 0
        return SkippedSteps(not_finite, in_a_row, overflowed)


def check_optimized(named: list[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer) -> None:
    """Every parameter with a gradient must be in a group of the optimizer.

    Raises RuntimeError with the names of those that are not: a parameter that was replaced after the optimizer was
    built gets gradients and never moves, and its checkpoint is one of another model.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lost = [name for name, parameter in named if parameter.grad is not None and id(parameter) not in known]
    if lost:
        raise RuntimeError(
            f"{', '.join(lost)}: a gradient, and no place in the optimizer - a parameter may be changed in place during"
            " training, but not replaced by another one"
        )


def check_finite(state: dict[str, Any], step: int) -> None:
    """Raises NumbersError, with the first names, when a number in a nested state is not finite; synchronizes."""
    broken = list(_not_finite(state, ""))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise NumbersError(f"not finite at step {step}: {', '.join(broken[:3])}{more}")


def _not_finite(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{name}.{index}")
    elif isinstance(value, Tensor):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield name
    elif isinstance(value, float) and not math.isfinite(value):
        yield name
