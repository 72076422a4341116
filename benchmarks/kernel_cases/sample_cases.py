"""Cases for the kernels between the large ones: samples, their depth, what a color network sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.kernel_cases import baseline
from benchmarks.kernel_cases.case import FLOAT, Case, Inputs, Least, Results, backward, both, share_that_differs
from models.kernels.networks import color_inputs
from models.kernels.rays import logistic, march, packed, sums

FEATURES, HARMONICS = 15, 16  # of a geometry network, of a direction of view


def sample_cases(inputs: Inputs) -> Iterator[Case]:
    """What the sampler does between the march and the networks, without a way back."""
    rays, offsets, count, device = inputs.rays, inputs.offsets, len(inputs.points), inputs.points.device
    of = baseline.ray_index(offsets)
    index, t, value = of.int(), torch.rand(count, device=device), torch.randn(count, device=device)
    places = torch.arange(count, device=device) - offsets.index_select(0, of)
    mask = places < (offsets.diff() // 2).index_select(0, of)  # the front of each ray
    kept = baseline.compact(mask, offsets)
    starts, s = t.index_select(0, kept.indices) - 0.1, torch.tensor(100.0, device=device)
    columns, ways = [t, value, t, value], (rays.origins, rays.directions)
    some, size = len(kept.indices), FLOAT * count

    def pieces(how: Any) -> Results:
        return tuple(how(*ways, rays.near, rays.far))

    def compacted(how: Any) -> Results:
        return tuple(how(mask, offsets)[:2])

    def gathered(how: Any) -> Results:
        found, of = how(kept.indices, columns, index)
        return (*found, of)

    def crossed(how: Any) -> Results:
        return (how(value, t, index, kept.indices, starts, starts + 0.2, steep=0.1),)

    yield Case("clipped rays", len(rays), both(pieces, march.clipped, baseline.clipped))
    forms = both(compacted, packed.compact, baseline.compact)
    yield Case("compacted samples", count, forms, Least(copied=count + 8 * some), differ=share_that_differs)
    forms = both(lambda how: (how(*ways, index, t),), packed.points, baseline.points)
    yield Case("points", count, forms, Least(copied=5 * size))
    forms = both(gathered, packed.gather, baseline.gather)
    yield Case("gathered samples", some, forms, Least(copied=12 * FLOAT * some))
    forms = both(lambda how: (how(value, index),), packed.preceding, baseline.preceding)
    yield Case("sample before", count, forms, Least(copied=3 * size))
    yield Case("crossings", some, both(crossed, packed.crossings, baseline.crossings), Least(copied=9 * FLOAT * some))
    forms = both(lambda how: (how(value.abs(), mask, offsets, most=7.0),), sums.below, baseline.below)
    yield Case("visible samples", count, forms, Least(copied=size + 2 * count), differ=share_that_differs)
    pair = logistic.estimated_optical_depth, baseline.estimated_optical_depth
    forms = both(lambda how: (how(value, value.roll(1), s),), *pair)
    yield Case("estimated optical depth", count, forms, Least(copied=3 * size))


def depth_cases(inputs: Inputs) -> Iterator[Case]:
    """The logistic optical depth, the eikonal residual; both back."""
    count, device = len(inputs.points), inputs.points.device
    value = (0.02 * torch.randn(count, device=device)).requires_grad_()
    gradient = torch.randn(count, 3, device=device, requires_grad=True)
    ways, t = F.normalize(torch.randn(count, 3, device=device), dim=-1), torch.rand(count, device=device)
    s, one = torch.tensor(100.0, device=device, requires_grad=True), torch.ones((), device=device)
    grad, size = torch.randn(count, device=device), FLOAT * count

    def depth(how: Any) -> Results:
        return (how(value, gradient, ways, (t, t + 0.01, t + 0.02), s, one),)

    forms = both(depth, logistic.optical_depth, baseline.optical_depth)
    yield Case("logistic depth", count, forms, Least(copied=11 * size))
    yield Case("  backward", count, backward(forms, [value, gradient, s], [grad]), Least(copied=15 * size))
    forms = both(lambda how: (how(gradient),), color_inputs.off_unit, baseline.off_unit)
    yield Case("eikonal residual", count, forms, Least(copied=4 * size))
    yield Case("  backward", count, backward(forms, [gradient], [grad]), Least(copied=7 * size))


def view_cases(inputs: Inputs) -> Iterator[Case]:
    """Mirrored directions, and all that a color network sees in a row; both back."""
    count, device = len(inputs.points), inputs.points.device
    gradient = torch.randn(count, 3, device=device, requires_grad=True)
    ways, size = F.normalize(torch.randn(count, 3, device=device), dim=-1), FLOAT * count
    output = torch.randn(count, 1 + FEATURES, device=device, requires_grad=True)
    view = torch.randn(count, HARMONICS, device=device, requires_grad=True)
    width = 3 + HARMONICS + 3 + FEATURES
    grads = torch.randn(count, device=device), torch.randn(count, width, device=device)

    def joined(how: Any) -> Results:
        value, features = how.split(output)
        return value, how.joined(features, [inputs.points, view, gradient])

    forms = both(lambda how: (how(ways, gradient),), color_inputs.mirrored, baseline.mirrored)
    yield Case("mirrored directions", count, forms, Least(copied=9 * size))
    yield Case("  backward", count, backward(forms, [gradient], [torch.randn_like(ways)]), Least(copied=12 * size))
    forms = both(joined, color_inputs, baseline)
    yield Case("joined parts", count, forms, Least(copied=2 * size * (width + 1)))
    yield Case("  backward", count, backward(forms, [output, view, gradient], grads), Least(copied=2 * size * width))
