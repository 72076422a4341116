"""Adam in its quickest form: torch's fused step on a GPU, a kernel that the threads share on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.graph import increment_version

from models.kernels.networks.optimizers import adam_step, lazy_adam_step
from models.optimizers.base import MomentsConfig, Uncompiled, found_inf_flag


class AdamConfig(MomentsConfig):
    """Kingma and Ba, "Adam" (2015)."""

    type: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0, description="pulls every weight to zero, by way of the gradient")
    lazy: bool = Field(False, description="numbers whose gradient is exactly zero keep value and moments")

    def build(self, groups: Sequence[dict[str, Any]]) -> Adam:
        options: dict[str, Any] = {"betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}
        return Adam(groups, lr=self.lr, lazy=self.lazy, **options)


class Adam(Uncompiled, torch.optim.Adam):
    """One pass over memory for each parameter; state as torch's. With `found_inf` above 0 a step changes nothing.

    Torch's fused step does not count the versions of what it changes; here it does, so that what was computed from a
    parameter can tell that it is out of date.
    """

    def __init__(
        self, groups: Sequence[Any], *, decoupled: bool = False, lazy: bool = False, **options: Any
    ) -> None:
        """groups and options as torch's. decoupled: weight decay apart from the gradient, AdamW's.

        lazy: numbers whose gradient is exactly zero keep value and moments; the count of steps is the parameter's.
        """
        super().__init__(groups, fused=True, decoupled_weight_decay=decoupled, **options)
        self.found_inf: Tensor | None = None
        self.lazy = lazy

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing here is evaluated twice
        if self.lazy:
            self._each(self._move_lazily)
        elif self.param_groups[0]["params"][0].device.type != "cpu":
            super().step()
        elif self.found_inf is None or float(self.found_inf) == 0:
            self._each(self._move)
        increment_version([parameter for group in self.param_groups for parameter in group["params"]])

    def _each(self, move: Callable[[Tensor, Tensor, dict[str, Any]], None]) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, group)

    def fresh_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """See `UpdateRule.fresh_state`."""
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), device=parameter.device), **moments}

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state.update(self.fresh_state(parameter))
        return state

    def _move(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self._state_of(parameter), group["betas"]
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

    def _move_lazily(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Without reading a number on the host: the count of steps and the corrections are the device's."""
        state, betas = self._state_of(parameter), group["betas"]
        skipped = found_inf_flag(self.found_inf, parameter.device)
        state["step"] += (skipped == 0).view(())
        count = state["step"].double()
        rates = torch.stack([group["lr"] / (1 - betas[0] ** count), (1 - betas[1] ** count).sqrt()]).float()
        lazy_adam_step(
            parameter,
            grad.contiguous(),
            (state["exp_avg"], state["exp_avg_sq"]),
            rates=rates,
            betas=betas,
            eps=group["eps"],
            decay=group["weight_decay"],
            skipped=skipped,
        )
