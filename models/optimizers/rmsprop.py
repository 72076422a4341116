"""RMSprop as grids without networks are trained with it: no bias correction, the first square taken as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.graph import increment_version

from models.kernels.networks.optimizers import rmsprop_step
from models.optimizers.base import Beta, OptimizerConfig, UpdateRule, found_inf_flag


class RmspropConfig(OptimizerConfig):
    """Fridovich-Keil et al., "Plenoxels" (2022), section 3.3 and its published code."""

    type: Literal["rmsprop"] = "rmsprop"
    moments: ClassVar[int] = 1
    beta: Beta = Field(0.95, description="share of the mean square that a step keeps")
    eps: float = Field(1e-8, gt=0)
    lazy: bool = Field(False, description="numbers whose gradient is exactly zero keep their mean square")

    def build(self, groups: Sequence[dict[str, Any]]) -> Rmsprop:
        return Rmsprop(groups, lr=self.lr, beta=self.beta, eps=self.eps, lazy=self.lazy)


class Rmsprop(UpdateRule):
    """v = g^2 where v is zero, else beta v + (1 - beta) g^2; then p -= lr g / (sqrt(v) + eps). A kernel on any device.

    The state of a parameter is `square_avg`, v, as torch's RMSprop calls it.
    """

    def __init__(self, groups: Sequence[Any], *, lr: float, beta: float = 0.95, eps: float = 1e-8, lazy: bool = False):
        """groups as torch's. lazy: numbers whose gradient is exactly zero keep v."""
        super().__init__(groups, {"lr": lr, "beta": beta, "eps": eps})
        self.lazy = lazy

    def fresh_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """See `UpdateRule.fresh_state`."""
        return {"square_avg": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing here is evaluated twice
        for group in self.param_groups:
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                state = self.state[parameter]
                if not state:
                    state.update(self.fresh_state(parameter))
                rmsprop_step(
                    parameter,
                    parameter.grad.contiguous(),
                    state["square_avg"],
                    rate=group["lr"],
                    beta=group["beta"],
                    eps=group["eps"],
                    lazy=self.lazy,
                    skipped=found_inf_flag(self.found_inf, parameter.device),
                )
            increment_version(group["params"])
