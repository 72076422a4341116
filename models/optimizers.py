"""Adam in its quickest form: torch's fused step on a GPU, a kernel that the threads share on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from models.kernels.networks.adam import adam_step


class Adam(torch.optim.Adam):
    """One pass over memory for each parameter; state as torch's. With `found_inf` above 0 a step changes nothing.

    Torch's fused step does not count the versions of what it changes; here it does, so that what was computed from a
    parameter can tell that it is out of date.
    """

    def __init__(self, groups: Sequence[Any], *, decoupled: bool = False, **options: Any) -> None:
        """groups and options as torch's. decoupled: weight decay apart from the gradient, AdamW's."""
        super().__init__(groups, fused=True, decoupled_weight_decay=decoupled, **options)
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing here is evaluated twice
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super().step()
        elif self.found_inf is None or float(self.found_inf) == 0:
            self._by_kernels()
        increment_version([parameter for group in self.param_groups for parameter in group["params"]])

    def _by_kernels(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, decay = float(state["step"]), group["weight_decay"]
        if group["decoupled_weight_decay"]:
            parameter.mul_(1 - group["lr"] * decay)
            decay = 0.0
        adam_step(
            parameter,
            grad.contiguous(),
            (state["exp_avg"], state["exp_avg_sq"]),
            rates=(group["lr"] / (1 - beta1**step), (1 - beta2**step) ** 0.5),
            betas=(beta1, beta2),
            eps=group["eps"],
            decay=decay,
        )
