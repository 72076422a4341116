"""The kernels of models/kernels in PyTorch alone, as one would write them without kernels: the other side of a ratio.

Whole arrays at a time, gradients by autograd, and of several operations that do the same the quickest. Signatures are
the kernels', so that `instead_of_kernels` can run the product itself without them. The tests have twins of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.patch import patched
from models.kernels.encodings import hash_encode as _hash_encode
from models.kernels.encodings.hash_encode import HashLevels
from models.kernels.networks import color_inputs as _color_inputs
from models.kernels.networks import mlp as _mlp
from models.kernels.networks import softplus as _softplus
from models.kernels.rays import logistic as _logistic
from models.kernels.rays import march as _march
from models.kernels.rays import packed as _packed
from models.kernels.rays import sums as _sums
from models.kernels.rays import trace as _trace

PRIMES = (1, 2654435761, 805459861)


def hash_encode(
    points: Tensor, table: Tensor, levels: HashLevels, *, active: int, lead: int = 0, read: Tensor | None = None
) -> Tensor:
    """[M, 3] -> [M, lead + 2L]; differentiable twice by autograd."""
    table = table if read is None else table + (read.float() - table).detach()
    sides = levels.resolution[:active].long() + 1
    first, rows = levels.first_row[:active].long(), levels.first_row.diff()[:active].long()
    dense = int((sides**3 <= rows).sum())  # the coarse levels
    unit = (points * 0.5 + 0.5).clamp(0, 1)[:, None]
    parts = [points[:, :lead]]
    for is_dense, group in ((True, range(dense)), (False, range(dense, active))):
        # On a CPU a level at a time stays in the cache; on a GPU fewer and larger operations are quicker.
        at_once = 1 if points.device.type == "cpu" else max(len(group), 1)
        for start in range(group.start, group.stop, at_once):
            part = slice(start, start + at_once if at_once == 1 else group.stop)
            side = sides[part, None]
            scaled = unit * (side - 1)  # [M, l, 3]
            cell = torch.minimum(scaled.detach().long(), side - 2)
            row = _corners(cell, side, rows[part, None, None, None] - 1, is_dense) + first[part, None, None, None]
            parts.append(_interpolated(table, row, scaled - cell))
    return F.pad(torch.cat(parts, 1), (0, 2 * (len(levels.resolution) - active)))


def _corners(cell: Tensor, side: Tensor, mask: Tensor, dense: bool) -> Tensor:
    """Rows [M, l, 2, 2, 2] of the corners (x, y, z) of cells [M, l, 3], from the level's first row on."""
    around = torch.stack([cell, cell + 1], -1)  # [M, l, 3, 2]
    steps = torch.cat([side**0, side, side**2], 1) if dense else torch.tensor(PRIMES, device=cell.device)
    x, y, z = (around * steps[..., None]).unbind(-2)
    x, y, z = x[..., :, None, None], y[..., None, :, None], z[..., None, None, :]
    return x + y + z if dense else (x ^ y ^ z) & mask


def _interpolated(table: Tensor, row: Tensor, fraction: Tensor) -> Tensor:
    """[M, 2 l]: one axis after the other."""
    value = table.index_select(0, row.reshape(-1)).view(*row.shape, table.shape[1])
    for axis, f in enumerate(fraction.unbind(-1)):
        low, high = value.unbind(2)
        value = low + f.view(*f.shape, *[1] * (3 - axis)) * (high - low)
    return value.flatten(1)


def hash_encode_with_vjp(
    points: Tensor, table: Tensor, levels: HashLevels, *, active: int, lead: int = 0, read: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The features, and their gradient in the points by nested automatic differentiation."""
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points if points.requires_grad else points.detach().requires_grad_()
        features = hash_encode(points, table, levels, active=active, lead=lead, read=read)

    def vjp(weight: Tensor) -> Tensor:
        return torch.autograd.grad(features, points, weight, create_graph=wanted, retain_graph=True)[0]

    return features if wanted else features.detach(), vjp


def ray_index(offsets: Tensor) -> Tensor:
    """[R+1] -> [M]: the ray of each sample."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def exclusive_sum(values: Tensor, offsets: Tensor, rays: Tensor | None = None) -> Tensor:
    """One running sum over all rays, in float64 since its start is subtracted. rays: `ray_index(offsets)` if known."""
    running = F.pad(values.double().cumsum(0), (1, 0))
    before = running.index_select(0, offsets[:-1])
    return (running[:-1] - before.index_select(0, ray_index(offsets) if rays is None else rays)).to(values.dtype)


def total(values: Tensor, offsets: Tensor, rays: Tensor | None = None) -> Tensor:
    """Each sample is added to its ray. rays: `ray_index(offsets)` if known."""
    rays = ray_index(offsets) if rays is None else rays
    return values.new_zeros(len(offsets) - 1, *values.shape[1:]).index_add(0, rays, values)


def composite(tau: Tensor, color: Tensor, t: Tensor, gradient: Tensor | None, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """A weight per sample, and sums."""
    weight = torch.exp(-exclusive_sum(tau, offsets)) * -torch.expm1(-tau)
    normal = torch.zeros_like(color) if gradient is None else F.normalize(gradient.detach(), dim=-1)
    parts = [color * weight[:, None], (t * weight)[:, None], normal * weight.detach()[:, None]]
    return total(torch.cat(parts, -1), offsets), torch.exp(-total(tau, offsets))


def unbroken(starts: Tensor, ends: Tensor, offsets: Tensor) -> Tensor:
    """By the number of gaps so far, rays one after the other."""
    rays = ray_index(offsets)
    follows = F.pad(rays[1:] == rays[:-1], (1, 0))[: len(rays)]
    gap = (follows & (starts - ends.roll(1) > 0.5 * (ends - starts))).float()
    return exclusive_sum(gap, offsets, rays) + gap == 0


def below(values: Tensor, counted: Tensor, offsets: Tensor, *, most: float) -> Tensor:
    """By the sums."""
    return exclusive_sum(torch.where(counted, values, torch.zeros_like(values)), offsets) < most


def compact(mask: Tensor, offsets: Tensor, capacity: int | None = None) -> _packed.Compacted:
    """All true places, and how many of them lie before each ray's start."""
    index = (mask & (torch.arange(len(mask), device=mask.device) < offsets[-1])).nonzero()[:, 0]
    kept = torch.searchsorted(index, offsets.long(), out_int32=True)
    return _packed.Compacted(index, kept, kept[-1])


def gather(index: Tensor, columns: list[Tensor], ray_index: Tensor) -> tuple[list[Tensor], Tensor]:
    """Column by column."""
    return [x.index_select(0, index) for x in columns], ray_index.index_select(0, index)


def points(
    origins: Tensor,
    directions: Tensor,
    ray_index: Tensor,
    t: Tensor,
    index: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Tensor:
    """Origins and directions of all samples first."""
    if index is not None:
        ray_index, t = ray_index.index_select(0, index), t.index_select(0, index)
    return origins.index_select(0, ray_index) + t[:, None] * directions.index_select(0, ray_index)


def preceding(values: Tensor, ray_index: Tensor) -> Tensor:
    """All values one place further, where the ray is the same."""
    before = ray_index.roll(1)
    before[:1] = -1
    return torch.where(before == ray_index, values.roll(1), values)


def crossings(
    value: Tensor, t: Tensor, ray_index: Tensor, index: Tensor, starts: Tensor, ends: Tensor, *, steep: float
) -> Tensor:
    """The same arithmetic, an array at a time."""
    now, then, here, there = (
        x.index_select(0, index) for x in (value, preceding(value, ray_index), t, preceding(t, ray_index))
    )
    slope = (now - then) / (here - there).clamp_min(1e-6)
    meets = here - now / slope.clamp_max(-steep)
    return torch.where((here > there) & (starts <= meets) & (meets <= ends), meets, here)


def clipped(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, *, beyond: bool = False
) -> tuple[Tensor, Tensor]:
    """By the point closest to the center."""
    middle = -(origins * directions).sum(-1)
    half = (1 - (origins + middle[:, None] * directions).square().sum(-1)).clamp_min(0).sqrt()
    if beyond:
        return torch.maximum(near, middle + half), far
    near = torch.maximum(near, middle - half)
    return near, torch.maximum(torch.minimum(far, middle + half), near)


def estimated_optical_depth(before: Tensor, after: Tensor, s: Tensor) -> Tensor:
    """By torch's own log-sigmoid."""
    return F.relu(F.logsigmoid(s * before) - F.logsigmoid(s * after))


def optical_depth(
    value: Tensor,
    gradient: Tensor,
    directions: Tensor,
    intervals: tuple[Tensor, Tensor, Tensor],
    s: Tensor,
    anneal: Tensor,
) -> Tensor:
    """From the slope to both ends of the interval; differentiable by autograd."""
    t0, t, t1 = intervals
    cosine = (gradient * directions).sum(-1)
    slope = -(F.relu(0.5 - 0.5 * cosine) * (1 - anneal)) - F.relu(-cosine) * anneal
    return estimated_optical_depth(value + slope * (t0 - t), value + slope * (t1 - t), s)


def mirrored(directions: Tensor, gradient: Tensor) -> Tensor:
    """As it is written; differentiable by autograd."""
    square = gradient.square().sum(-1, keepdim=True) + 1e-12
    return directions - 2 * (directions * gradient).sum(-1, keepdim=True) / square * gradient


def off_unit(gradient: Tensor) -> Tensor:
    """As it is written; differentiable by autograd."""
    return ((gradient.square().sum(-1) + 1e-12).sqrt() - 1).square()


def split(output: Tensor) -> tuple[Tensor, Tensor]:
    """Two slices."""
    return output[..., 0], output[..., 1:]


def joined(features: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """A concatenation."""
    return torch.cat([*parts, features], -1)


def march(
    origins: Tensor,
    directions: Tensor,
    *,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    cells: tuple[Tensor, Tensor],
    steps: Tensor,
    capacity: int | None = None,
) -> _march.Marched:
    """Every step of the lattice of every ray is looked up, blocks or not. One level, even steps, any capacity."""
    (occupied,), (step, cone) = cells[0], steps.tolist()
    assert cone == 0
    n = len(occupied)
    finite = torch.where(far > near, far.clamp_max(1e4) - near, 0.0)
    count = math.ceil(float(finite.amax()) / step) + 1 if len(near) else 0
    starts = near[:, None] + (torch.arange(count, device=near.device) + jitter[:, None] - 1) * step
    middle = starts + step / 2
    points = origins[:, None] + middle[..., None] * directions[:, None]
    x, y, z = ((points * 0.5 + 0.5) * n).long().clamp_(0, n - 1).unbind(-1)
    inside = (points.abs().amax(-1) <= 1) & (middle >= near[:, None]) & (middle < far[:, None])
    keep = inside & occupied.view(-1)[(x * n + y) * n + z].bool()
    offsets = F.pad(keep.sum(1).cumsum(0, dtype=torch.int32), (1, 0))
    return _march.Marched(starts[keep], starts[keep] + step, keep.nonzero()[:, 0].int(), offsets, offsets[-1])


def mlp_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, activation: str, beta: float
) -> Tensor:
    """Layer by layer."""
    *hidden, last = zip(weights, biases, strict=True)
    for weight, bias in hidden:
        x = F.linear(x, weight, bias)
        x = F.softplus(x, beta=beta) if activation == "softplus" else torch.relu(x)
    return F.linear(x, *last)


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    activation: str,
    beta: float,
    channel: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The gradient by autograd, which then differentiates it again."""
    if channel is None:
        return mlp_forward(x, weights, biases, activation=activation, beta=beta), None
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        out = mlp_forward(at, weights, biases, activation=activation, beta=beta)
        (gradient,) = torch.autograd.grad(out[:, channel].sum(), at, create_graph=wanted, retain_graph=True)
    return (out, gradient) if wanted else (out.detach(), gradient)


def harmonics(x: Tensor, *, degree: int) -> Tensor:
    """Term by term; differentiable by autograd."""
    x, y, z = x.unbind(-1)
    terms = [torch.full_like(x, 0.28209479177387814)]
    if degree > 0:
        terms += [0.4886025119029199 * axis for axis in (y, z, x)]
    if degree > 1:
        terms += [1.0925484305920792 * x * y, 1.0925484305920792 * y * z]
        terms += [0.31539156525252005 * (3 * z * z - 1)]
        terms += [1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)]
    if degree > 2:
        terms += [0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
        terms += [0.4570457994644658 * y * (5 * z * z - 1), 0.3731763325901154 * z * (5 * z * z - 3)]
        terms += [0.4570457994644658 * x * (5 * z * z - 1), 1.445305721320277 * z * (x * x - y * y)]
        terms += [0.5900435899266435 * x * (x * x - 3 * y * y)]
    return torch.stack(terms, -1)


def softplus_forward(x: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """The value and its slope; differentiable by autograd."""
    return F.softplus(x, beta=beta), torch.sigmoid(beta * x)


def softplus_backward(slope: Tensor, grad_value: Tensor, grad_slope: Tensor, *, beta: float) -> Tensor:
    """The gradient of both."""
    return slope * (grad_value + grad_slope * (beta * (1 - slope)))


def trace(
    origins: Tensor, directions: Tensor, *, near: Tensor, far: Tensor, values: Tensor, trust: float, least: float
) -> Tensor:
    """Sphere tracing of the rays that are still on their way, by `grid_sample`; then the secant."""
    index = (near < far).nonzero()[:, 0]
    meets = torch.full_like(near, torch.inf)
    o, d, t, end = origins[index], directions[index], near[index], far[index]
    value = _read(values, o, d, t)
    for _ in range(_trace.MOST_STEPS):
        if len(index) == 0:
            break
        ahead = torch.minimum(t + (value.abs() * trust).clamp_min(least), end)
        after = _read(values, o, d, ahead)
        enters = (value > 0) & (after <= 0)
        ends = [part[enters] for part in (t, ahead, value, after)]
        meets[index[enters]] = _secant(values, o[enters], d[enters], ends)
        on = (~enters & (ahead < end)).nonzero()[:, 0]
        index, o, d, t, end, value = index[on], o[on], d[on], ahead[on], end[on], after[on]
    return meets


def _read(values: Tensor, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
    """[R]: the values at distance t, linear in each axis."""
    at = (origins + t[:, None] * directions).flip(-1)[None, None, None]  # the last axis of the lattice first
    read = F.grid_sample(values[None, None], at, mode="bilinear", padding_mode="border", align_corners=True)
    return read.view(-1)


def _secant(values: Tensor, origins: Tensor, directions: Tensor, ends: list[Tensor]) -> Tensor:
    """[R]: the zero between two distances `low` and `high`, from the values there."""
    low, high, above, below = ends
    t = low + (high - low) * above / (above - below)
    for _ in range(3):
        value = _read(values, origins, directions, t)
        outside = value > 0
        low, above = torch.where(outside, t, low), torch.where(outside, value, above)
        high, below = torch.where(outside, high, t), torch.where(outside, below, value)
        t = low + (high - low) * above / (above - below)
    return t


PAIRS: tuple[tuple[Any, Any], ...] = (
    (_hash_encode.hash_encode, hash_encode),
    (_hash_encode.hash_encode_with_vjp, hash_encode_with_vjp),
    (_sums.exclusive_sum, exclusive_sum),
    (_sums.total, total),
    (_march.march, march),
    (_sums.composite, composite),
    (_sums.unbroken, unbroken),
    (_sums.below, below),
    (_packed.compact, compact),
    (_packed.gather, gather),
    (_packed.points, points),
    (_packed.preceding, preceding),
    (_packed.crossings, crossings),
    (_logistic.estimated_optical_depth, estimated_optical_depth),
    (_logistic.optical_depth, optical_depth),
    (_color_inputs.mirrored, mirrored),
    (_color_inputs.off_unit, off_unit),
    (_color_inputs.split, split),
    (_color_inputs.joined, joined),
    (_march.clipped, clipped),
    (_mlp.mlp_forward, mlp_forward),
    (_mlp.mlp, mlp),
    (_color_inputs.harmonics, harmonics),
    (_softplus.softplus_forward, softplus_forward),
    (_softplus.softplus_backward, softplus_backward),
    (_trace.trace, trace),
)


def instead_of_kernels() -> AbstractContextManager[None]:
    """Within, the product runs in PyTorch alone: each kernel's name in models/ means its PyTorch baseline."""
    return patched(PAIRS)
