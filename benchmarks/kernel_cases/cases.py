"""What benchmarks/kernels.py times: kernels and their PyTorch baselines on the same inputs, and the least possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernel_cases import baseline
from benchmarks.kernel_cases.case import FLOAT, Case, Inputs, Least, Results, backward, both
from benchmarks.kernel_cases.factor_cases import factor_cases
from benchmarks.kernel_cases.level_cases import hash_cases, permutohedral_cases
from benchmarks.kernel_cases.sample_cases import depth_cases, sample_cases, view_cases
from benchmarks.kernel_cases.tree_cases import tree_cases
from dataio.cameras import Rays
from models.bounds.sphere import Sphere
from models.encodings.hash_grid import HashGridConfig
from models.kernels.encodings.hash_encode import HashLevels
from models.kernels.networks.color_inputs import harmonics
from models.kernels.networks.mlp import mlp, mlp_forward
from models.kernels.rays.march import blocks, march
from models.kernels.rays.sums import composite, exclusive_sum, total
from models.kernels.rays.trace import trace
from models.networks import activations

CHANNELS = 7  # what a rendering sums up per sample: color, distance, normal
RADIUS, SHELL = 0.5, 0.06  # of the surface that the rays look at, and how far from it cells are occupied
CLOSE = 1e-3  # distance up to which two hits count as the same


@dataclass(frozen=True)
class Sizes:
    """How much the kernels get. pixels: rays through the lattice of values. lattice, grid: points, cells per side."""

    rays: int = 2048
    samples: int = 24_000
    pixels: int = 1 << 16
    lattice: int = 128
    grid: int = 64


def make_inputs(sizes: Sizes, encoding: HashGridConfig, device: torch.device) -> Inputs:
    """The same for the same sizes. The step is chosen so that there are about `sizes.samples` samples."""
    torch.manual_seed(0)
    rays = sphere_rays(sizes.rays)
    axis = (torch.arange(sizes.grid) + 0.5) * (2 / sizes.grid) - 1
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    occupied = ((distance - RADIUS).abs() < SHELL).to(torch.uint8)[None]
    jitter = torch.rand(sizes.rays)
    step = 0.01
    coarse = blocks(occupied)
    for _ in range(3):  # how many samples there are is not quite inverse to the step
        starts, *_ = marched(rays, jitter, (occupied, coarse), step, march)
        step *= len(starts) / sizes.samples
    starts, ends, index, offsets, _ = marched(rays, jitter, (occupied, coarse), step, march)
    points = rays[index.long()].at((starts + ends) / 2)
    levels = HashLevels.geometric(encoding.levels, base=encoding.base, top=encoding.top, log2_rows=encoding.log2_rows)
    return Inputs(
        rays=rays.to(device),
        jitter=jitter.to(device),
        occupied=occupied.to(device),
        coarse=coarse.to(device),
        step=step,
        offsets=offsets.to(device),
        points=points.to(device),
        levels=levels.to(device),
    )


def sphere_rays(count: int) -> Rays:
    """From 2.5 units away at points around the sphere, clipped to the unit sphere."""
    origins = 2.5 * F.normalize(torch.randn(count, 3), dim=-1)
    directions = F.normalize(torch.rand(count, 3) * 1.4 - 0.7 - origins, dim=-1)
    ends = torch.zeros(count), torch.full((count,), torch.inf)
    return Sphere().clip(Rays(origins, directions, *ends, torch.zeros(count, dtype=torch.int64)))


def marched(rays: Rays, jitter: Tensor, cells: tuple[Tensor, Tensor], step: float, how: Any) -> Results:
    """The samples by `how`, the kernel or its PyTorch baseline. cells: occupied ones, and their blocks."""
    ends = {"near": rays.near, "far": rays.far}
    steps = torch.tensor([step, 0.0], device=jitter.device)
    return how(rays.origins, rays.directions, **ends, jitter=jitter, cells=cells, steps=steps)


def cases(sizes: Sizes, inputs: Inputs, width: int) -> Iterator[Case]:
    """All kernels. width: of the hidden layer."""
    yield from hash_cases(inputs)
    yield from permutohedral_cases(inputs)
    yield from factor_cases(inputs)
    yield from tree_cases(inputs)
    yield from scan_cases(inputs)
    yield from seen_cases(inputs)
    yield from ray_cases(sizes, inputs)
    yield from sample_cases(inputs)
    yield from depth_cases(inputs)
    yield from view_cases(inputs)
    yield from network_cases(len(inputs.points), 3 + 2 * len(inputs.levels.resolution), width, inputs.points.device)


def scan_cases(inputs: Inputs) -> Iterator[Case]:
    """Sums within rays; the baseline knows the ray of each sample already, as the product does."""
    offsets, device = inputs.offsets, inputs.points.device
    rays, count = baseline.ray_index(offsets), len(inputs.points)
    for name, shape, ours, simple in (
        ("exclusive sum", (count,), exclusive_sum, partial(baseline.exclusive_sum, rays=rays)),
        ("total", (count, CHANNELS), total, partial(baseline.total, rays=rays)),
    ):
        values = torch.rand(shape, device=device, requires_grad=True)
        forms = partial(summed, ours, values, offsets), partial(summed, simple, values, offsets)
        grad = torch.rand_like(forms[0]()[0])
        least = Least(copied=FLOAT * (values.numel() + grad.numel() + len(offsets)))
        yield Case(name, count, forms, least)
        yield Case("  backward", count, backward(forms, [values], [grad]), least)


def seen_cases(inputs: Inputs) -> Iterator[Case]:
    """What rays see of their samples."""
    offsets, count, device = inputs.offsets, len(inputs.points), inputs.points.device
    tau = (3 * torch.rand(count, device=device)).requires_grad_()
    color = torch.rand(count, 3, device=device, requires_grad=True)
    t, gradient = torch.rand(count, device=device).cumsum(0), torch.randn(count, 3, device=device)

    def seen(how: Any) -> Results:
        return tuple(how(tau, color, t, gradient, offsets))

    forms = both(seen, composite, baseline.composite)
    grads = [torch.randn(len(offsets) - 1, 7, device=device), torch.randn(len(offsets) - 1, device=device)]
    grads[0][:, 4:] = 0  # normals have none
    yield Case("composite", count, forms, Least(copied=FLOAT * count * 8))
    yield Case("  backward", count, backward(forms, [tau, color], grads), Least(copied=FLOAT * count * 9))


def summed(how: Any, values: Tensor, offsets: Tensor) -> Results:
    """The sums, as a kernel's results."""
    return (how(values, offsets),)


def ray_cases(sizes: Sizes, inputs: Inputs) -> Iterator[Case]:
    """The march through the grid, and tracing a lattice of values to the surface."""
    cells = inputs.occupied, inputs.coarse
    marches = both(partial(marched, inputs.rays, inputs.jitter, cells, inputs.step), march, baseline.march)
    yield Case("march", len(inputs.points), marches, differ=other_samples)
    device = inputs.points.device
    axis = torch.linspace(-1, 1, sizes.lattice)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    bumps = 0.03 * (torch.sin(9 * x) + torch.sin(11 * y) + torch.sin(13 * z))
    values = (torch.stack([x, y, z]).norm(dim=0) - RADIUS + bumps).to(device)
    rays = sphere_rays(sizes.pixels).to(device)

    def traced(how: Any) -> Results:
        ends = {"near": rays.near, "far": rays.far}
        return (how(rays.origins, rays.directions, **ends, values=values, trust=0.8, least=1 / (sizes.lattice - 1)),)

    yield Case("trace", sizes.pixels, both(traced, trace, baseline.trace), differ=other_hits)


def network_cases(count: int, inputs: int, width: int, device: torch.device) -> Iterator[Case]:
    """The networks, harmonics of directions, softplus with its slope on a hidden layer."""
    yield from tiled_cases(count, inputs, width, device)
    yield from harmonics_cases(count, device)
    hidden = (0.05 * torch.randn(count, width, device=device)).requires_grad_()
    grads = torch.randn_like(hidden), torch.randn_like(hidden)
    size = FLOAT * hidden.numel()

    def softplus(how: Any) -> Results:
        return how(hidden)

    forms = both(softplus, activations.softplus, partial(baseline.softplus_forward, beta=activations.BETA))
    values = both(
        torch.no_grad()(softplus), activations.softplus, partial(baseline.softplus_forward, beta=activations.BETA)
    )
    yield Case("softplus with slope", count, values, Least(copied=3 * size))
    yield Case("  backward", count, backward(forms, [hidden], grads), Least(copied=4 * size))


def tiled_cases(count: int, inputs: int, width: int, device: torch.device) -> Iterator[Case]:
    """The geometry network without a graph, as the sampler asks it; with its gradient; the color network; both back."""
    softly = {"activation": "softplus", "beta": activations.BETA}
    widths = inputs, width, width // 4
    geometry, values = layers(widths, device), layers((inputs, width, 1), device)
    color = layers((width // 2, width, width, 3), device)
    x, seen = (torch.randn(count, size, device=device, requires_grad=True) for size in (inputs, width // 2))
    grads = [torch.randn(count, size, device=device) for size in (widths[-1], inputs, 3)]

    @torch.no_grad()
    def alone(how: Any) -> Results:
        return (how(x, *values, **softly),)

    def with_gradient(how: Any) -> Results:
        return how(x, *geometry, **softly, channel=0)

    def colors(how: Any) -> Results:
        return how(seen, *color, activation="relu", beta=0.0)[:1]

    few, flop, of_color = (2.0 * count * sum(weight.numel() for weight in net[0]) for net in (values, geometry, color))
    yield Case("network without a graph", count, both(alone, mlp_forward, baseline.mlp_forward), Least(flop=few))
    pairs = both(with_gradient, mlp, baseline.mlp)
    last = 2.0 * count * geometry[0][-1].numel()  # which the gradient at the input does not need
    yield Case("network with gradient", count, pairs, Least(flop=2 * flop - last))
    ways = [x, *geometry[0], *geometry[1]]
    yield Case("  double backward", count, backward(pairs, ways, grads[:2]), Least(flop=4 * flop - 2 * last))
    pairs = both(colors, mlp, baseline.mlp)
    yield Case("color network", count, pairs, Least(flop=of_color))
    ways = [seen, *color[0], *color[1]]
    yield Case("  backward", count, backward(pairs, ways, grads[2:]), Least(flop=2 * of_color))


def layers(widths: Sequence[int], device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of a network, as leaves."""
    sides = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [(torch.randn(*side, device=device) / side[1] ** 0.5).requires_grad_() for side in sides]
    return weights, [(0.1 * torch.randn(side[0], device=device)).requires_grad_() for side in sides]


def harmonics_cases(count: int, device: torch.device) -> Iterator[Case]:
    """Spherical harmonics up to degree 3 of the directions of view."""
    directions = F.normalize(torch.randn(count, 3, device=device), dim=-1).requires_grad_()
    grad = torch.randn(count, 16, device=device)

    def expanded(how: Any) -> Results:
        return (how(directions, degree=3),)

    forms = both(expanded, harmonics, baseline.harmonics)
    values = both(torch.no_grad()(expanded), harmonics, baseline.harmonics)
    size = FLOAT * count
    yield Case("spherical harmonics", count, values, Least(copied=size * (3 + 16)))
    yield Case("  backward", count, backward(forms, [directions], [grad]), Least(copied=size * (3 + 16 + 3)))


def largest_difference(ours: Sequence[Tensor], simple: Sequence[Tensor]) -> float:
    """The largest difference between two results, in parts of the largest number in them."""
    pairs = zip(ours, simple, strict=True)
    return max(float(((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).detach()) for a, b in pairs)


def other_samples(ours: Sequence[Tensor], simple: Sequence[Tensor]) -> float:
    """Share of samples that only one of two marches has: mid-points within rounding of a wall."""
    counts = ours[3].diff() - simple[3].diff()
    return float(counts.abs().sum()) / max(len(simple[0]), 1)


def other_hits(ours: Sequence[Tensor], simple: Sequence[Tensor]) -> float:
    """Share of rays that meet the surface in one tracing only, or at other distances."""
    return float((~torch.isclose(ours[0], simple[0], rtol=0, atol=CLOSE)).float().mean())
