"""The gradient of a step, made that of all ranks' rays: one all-reduce once it is complete."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from utils import distributed

LARGE = 2**18  # numbers of a gradient that is exchanged where it lies; smaller ones travel together


def goes_alone(gradient: Tensor) -> bool:
    """Whether a gradient [*N] is exchanged where it lies."""
    return gradient.numel() >= LARGE and gradient.is_contiguous()


class Exchange:
    """Replaces every parameter's gradient by its mean over all ranks; all call it after each step's backward pass.

    What DistributedDataParallel does, but after the backward pass instead of within it. An overlap would hide little:
    the gradient of a large table, most of the bytes, is complete only at the end of that pass. And nothing of torch's
    compiler is imported, which DDP does: a restarted rank is back more than a second sooner.

    Where only some ranks have a gradient of a parameter, the others count as zero; where none has, there is none.
    """

    def __init__(self, module: nn.Module) -> None:
        """module: what is trained; its parameters and buffers are those of the first rank from here on."""
        state = [*module.parameters(), *module.buffers()]
        distributed.take_from_main([tensor.detach() for tensor in state])
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._host_seconds = 0.0
        self._events: tuple[Any, Any] | None = None

    def __call__(self) -> None:
        """Exchange the gradients, all of one type of numbers."""
        if not self.parameters:
            return
        device = self.parameters[0].device
        begun = time.perf_counter()
        if device.type == "cuda":
            self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._events[0].record()
        self._exchange()
        if self._events is not None:
            self._events[1].record()
        self._host_seconds = time.perf_counter() - begun

    def _exchange(self) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        present = torch.ones(len(gradients), dtype=gradients[0].dtype, device=gradients[0].device)
        lacking = [i for i, parameter in enumerate(self.parameters) if parameter.grad is None]
        for i in lacking:
            present[i] = 0
        small = [gradient for gradient in gradients if not goes_alone(gradient)]
        joined = torch.cat([*(gradient.flatten() for gradient in small), present])
        distributed.average([*filter(goes_alone, gradients), joined])
        *parts, present = joined.split([*(gradient.numel() for gradient in small), len(gradients)])
        if small:
            torch._foreach_copy_(small, [part.view_as(own) for part, own in zip(parts, small, strict=True)])
        if lacking:  # on a GPU only this waits for it
            shares = present.tolist()
            for i in lacking:
                self.parameters[i].grad = gradients[i] if shares[i] > 0 else None

    def seconds(self) -> float:
        """Wall seconds of the newest exchange, waiting for slower ranks included; waits for a GPU."""
        if self._events is None:
            return self._host_seconds
        self._events[1].synchronize()
        return float(self._events[0].elapsed_time(self._events[1])) / 1000
