"""LPIPS: the distance of two pictures as a network for recognition feels it. Its weights come from a file.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.entries import Entry
from utils.errors import InputError, printable

# Numbers of the convolutions in each of the five stages whose features are compared, as torchvision counts layers.
STAGES = {
    "alex": ((0,), (3,), (6,), (8,), (10,)),
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
}
FIRST_STRIDE = {"alex": 4, "vgg": 1}
FIRST_PADDING = {"alex": 2, "vgg": 1}
POOLED = {"alex": (3, (1, 2)), "vgg": (2, (1, 2, 3, 4))}  # side of the window, stages before which it comes
LEAST_SIDE = 64  # pixels, of what the deepest stage of AlexNet still sees something
TINY = 1e-10
HOW = 'torch.save(lpips.LPIPS(net="alex").state_dict(), FILE), by the package lpips'


class Lpips:
    """LPIPS by the weights of one network, on the CPU."""

    def __init__(self, name: str, state: Entry) -> None:
        """name: of `STAGES`. state: the weights by the names that the package lpips gives. Raises InputError."""
        self.name = name
        self.shift, self.scale = (state[f"scaling_layer.{kind}"].tensor((1, 3, 1, 1), torch.float32).float()
                                  for kind in ("shift", "scale"))  # fmt: skip
        self.stages: list[list[tuple[Tensor, Tensor]]] = []
        self.shares: list[Tensor] = []
        channels = 3
        for number, layers in enumerate(STAGES[name]):
            convolutions = []
            for layer in layers:
                own = f"net.slice{number + 1}.{layer}"
                weight = state[f"{own}.weight"].tensor((None, channels, None, None), torch.float32).float()
                channels = len(weight)
                convolutions.append((weight, state[f"{own}.bias"].tensor((channels,), torch.float32).float()))
            self.stages.append(convolutions)
            self.shares.append(state[f"lin{number}.model.1.weight"].tensor((1, channels, 1, 1), torch.float32).float())

    @staticmethod
    def read(path: Path) -> Lpips:
        """The network of a file. Raises InputError."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what torch's reader stumbles over has no type of its own
            reason = printable(" ".join(str(error).split())[:100])
            raise InputError(f"--lpips-weights: {path}: not readable ({reason}) - expected {HOW}") from error
        state = Entry(content, "", str(path))
        if not isinstance(content, dict):
            raise state.refused(f"the weights that {HOW} writes")
        deepest = {name: f"net.slice5.{stages[-1][-1]}.weight" for name, stages in STAGES.items()}
        found = next((name for name, key in deepest.items() if key in content), None)
        if found is None:
            raise InputError(f"--lpips-weights: {path}: no weights of {' or '.join(STAGES)} - expected {HOW}")
        return Lpips(found, state)

    @torch.no_grad()
    def __call__(self, prediction: Tensor, target: Tensor) -> float | None:
        """The distance of two pictures [H, W, 3] in [0, 1], 0 for equal ones; None for pictures that are too small."""
        if min(prediction.shape[:2]) < LEAST_SIDE:
            return None
        both = torch.stack([prediction, target]).float().movedim(-1, 1)
        x = (2 * both - 1 - self.shift) / self.scale
        distance = 0.0
        for number, share in enumerate(self.shares):
            x = self._stage(x, number)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + TINY)
            distance += float(((unit[0] - unit[1]).square() * share[0]).sum(0).mean())
        return distance

    def _stage(self, x: Tensor, number: int) -> Tensor:
        """Features [2, C, H, W] after a stage, from those before it."""
        window, before = POOLED[self.name]
        if number in before:
            x = F.max_pool2d(x, window, stride=2)
        for weight, bias in self.stages[number]:
            first = number == 0
            stride = FIRST_STRIDE[self.name] if first else 1
            padding = FIRST_PADDING[self.name] if first else weight.shape[-1] // 2
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
        return x
