"""A start as a sphere or as level ground for networks of which no closed form is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from models.fields.sdf import Sdf

STEPS, POINTS, RATE = 500, 512, 3e-4
CLOSE = 5e-3  # scene units: mean error at which the fit is done
SMOOTHING = 0.9


def fit_start(field: Sdf, *, ground: bool, radius: float, inside_out: bool) -> None:
    """Train the geometry network until its distance is |x| - radius in the unit ball, or the other way round.

    ground: until it is the third coordinate.

    Points are drawn by torch's generator of the CPU; the result is a function of its state. Mean absolute error, as
    the SIREN variant of neurecon has it, with fewer and larger steps: seconds instead of minutes on a CPU.
    """
    sign = -1.0 if inside_out else 1.0
    parameters = [*field.encoding.parameters(), *field.geometry.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    device, smooth = parameters[0].device, 1.0
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        x = in_ball(POINTS).to(device)
        output = field.geometry(field.encoding(x))[..., 0]
        goal = x[:, 2] if ground else sign * (x.norm(dim=-1) - radius)
        error = (output - goal).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * float(error.detach())
        if smooth < CLOSE:
            break
    for parameter in parameters:
        parameter.grad = None


def in_ball(count: int) -> Tensor:
    """[count, 3] points, uniform in the unit ball."""
    direction = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return direction * torch.rand(count, 1) ** (1 / 3)
