"""Several update rules as the one optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.optimizers.base import OptimizerConfig, Uncompiled


class Optimizers(Uncompiled):
    """One rule per group of parameters, which share state, rates and `found_inf`; to others a single optimizer.

    A group has `base_lr`, the rate that its schedule and all other factors multiply. With one rule for all groups state
    and groups are those of that rule alone. A step with `found_inf` [] float above 0 changes nothing.
    """

    def __init__(self, groups: Sequence[tuple[OptimizerConfig, Sequence[torch.nn.Parameter]]]) -> None:
        """groups: what holds for which parameters, none of them empty."""
        self.schedules = [config.schedule for config, _ in groups]
        self.rules = [
            config.build([{"params": list(parameters), "lr": config.lr, "base_lr": config.lr}])
            for config, parameters in groups
        ]
        for rule in self.rules:
            rule.param_groups[0]["rule"] = type(rule).__name__  # whose state it is, for checkpoints
        self.found_inf: Tensor | None = None
        super().__init__([rule.param_groups[0] for rule in self.rules], {})
        self._share()

    def _share(self) -> None:
        """Let each rule work on its group, and on the state of all."""
        for rule, group in zip(self.rules, self.param_groups, strict=True):
            rule.param_groups, rule.state = [group], self.state

    def set_rates(self, progress: float, scale: float) -> None:
        """Follow the schedules at `progress` in [0, 1]. scale: multiplies every rate."""
        for group, schedule in zip(self.param_groups, self.schedules, strict=True):
            group["lr"] = group["base_lr"] * (schedule(progress) * scale)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing here is evaluated twice
        for rule in self.rules:
            if hasattr(rule, "found_inf"):
                rule.found_inf = self.found_inf
            elif self.found_inf is not None and float(self.found_inf) > 0:
                continue
            rule.step()

    def forget(self, parameters: Iterable[Tensor]) -> None:
        """Zero moments and counts of steps of some parameters in place: a bias correction starts anew."""
        for parameter in parameters:
            for value in self.state.get(parameter, {}).values():
                value.zero_()

    def fresh_state(self) -> dict[int, dict[str, Tensor] | None]:
        """What the rules keep of each parameter, by its number in a state dict, as before its first step.

        Shapes and types alone, on the device "meta"; None for a rule that does not say it.
        """
        found: list[dict[str, Tensor] | None] = []
        for rule in self.rules:
            say = getattr(rule, "fresh_state", None)
            for parameter in rule.param_groups[0]["params"]:
                found.append(say(parameter.detach().to("meta")) if say else None)
        return dict(enumerate(found))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
