"""Initialization to a given shape by training: spheres and ground where no closed form is known, hulls for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from models.optimizers.adam import Adam
from utils.meshing.cells import cell_centers

if TYPE_CHECKING:
    from models.encodings.base import Encoding
    from models.networks.mlp import Mlp

STEPS, POINTS, RATE = 500, 512, 3e-4
CLOSE = 5e-3  # scene units: mean error at which the fit of a sphere is done
SMOOTHING = 0.9
HULL_STEPS, HULL_POINTS, HULL_RATE = 400, 8192, 1e-2
HULL_GRID, HULL_NEAR, HULL_CLOSER = 64, 0.04, 6


class Fitted(Protocol):
    """A field whose first output of a network on an encoding is its distance."""

    encoding: Encoding
    geometry: Mlp


def fit_plain(field: Fitted, goal: Callable[[Tensor], Tensor]) -> None:
    """Train the geometry network until its distance is that of a simple shape in the unit ball.

    goal: [N, 3] scene frame -> [N] scene units.

    Points are drawn by torch's generator of the CPU; the result is a function of its state. Mean absolute error, as
    the SIREN variant of neurecon has it, with fewer and larger steps: seconds instead of minutes on a CPU.
    """
    smooth = 1.0
    fit = _Fit(field, RATE, (0.9, 0.999))
    for step in range(STEPS):
        x = in_ball(POINTS)
        error = fit.step(x, goal(x), 1 - step / STEPS)
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * error
        if smooth < CLOSE:
            break
    fit.close()


def fit_shape(field: Fitted, distance: Callable[[Tensor], Tensor]) -> None:
    """Train encoding and geometry network to a distance: half of the points in the unit ball, half near the surface.

    distance: [N, 3] scene frame -> [N], positive outside. It is evaluated at half a million points, once. Points are
    drawn by torch's generator of the CPU; the result is a function of its state.
    """
    cell = 2 / HULL_GRID
    grid = cell_centers(HULL_GRID)
    everywhere = grid + (torch.rand_like(grid) - 0.5) * cell
    everywhere = everywhere[everywhere.norm(dim=-1) < 1]
    far = distance(everywhere)
    near = everywhere[far.abs() < HULL_NEAR].repeat(HULL_CLOSER, 1)
    near = near + (torch.rand_like(near) - 0.5) * 2 * cell
    pools = [(everywhere, far)] + ([(near, distance(near))] if len(near) else [])
    fit = _Fit(field, HULL_RATE, (0.9, 0.99))
    for step in range(HULL_STEPS):
        drawn = [torch.randint(len(x), (HULL_POINTS // len(pools),)) for x, _ in pools]
        x = torch.cat([pool[0][index] for pool, index in zip(pools, drawn, strict=True)])
        target = torch.cat([pool[1][index] for pool, index in zip(pools, drawn, strict=True)])
        fit.step(x, target, 1 - step / HULL_STEPS)
    fit.close()


def in_ball(count: int) -> Tensor:
    """[N, 3] points on the CPU, N = `count`, uniform in the unit ball."""
    direction = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return direction * torch.rand(count, 1) ** (1 / 3)


class _Fit:
    """Encoding and geometry network under an optimizer of their own."""

    def __init__(self, field: Fitted, rate: float, betas: tuple[float, float]) -> None:
        self.field, self.rate = field, rate
        self.parameters = [*field.encoding.parameters(), *field.geometry.parameters()]
        self.optimizer = Adam(self.parameters, lr=rate, betas=betas)

    def step(self, x: Tensor, target: Tensor, share: float) -> float:
        """One step at `share` of the rate; returns the mean absolute error before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * share
        device = self.parameters[0].device
        output = self.field.geometry(self.field.encoding(x.to(device)))[..., 0]
        error = (output - target.to(device)).abs().mean()
        self.optimizer.zero_grad()
        error.backward()
        self.optimizer.step()
        return float(error.detach())

    def close(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
