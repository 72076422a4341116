"""What rendering says about cells of space, against sums in NumPy; on one rank and on two."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.experiment import read_config
from models.feedback import Feedback, asking
from models.model import Model
from models.samples import DenseSamples, FieldSample, MediumRendering, PackedSamples
from tests.support.analytic import rays_at_sphere
from tests.support.sources import ROOT
from tests.support.two_ranks import said_by_two_ranks
from utils.errors import InputError

N = 4


def rendered(seed: int, *, packed: bool = False, padding: int = 0) -> tuple[MediumRendering, Tensor]:
    """Rays with ten samples each, some outside of the cube, and the error of each ray."""
    g = torch.Generator().manual_seed(seed)
    rays, count = rays_at_sphere(30, spread=1.0), 10
    edges = torch.linspace(0.2, 5.0, count + 1).expand(len(rays), -1)
    samples: DenseSamples | PackedSamples = DenseSamples.from_edges(rays, edges)
    tau, error = torch.rand(len(rays), count, generator=g), torch.rand(len(rays), generator=g)
    if packed:
        index = torch.arange(len(rays)).repeat_interleave(count)
        pad = torch.nn.functional.pad
        samples = PackedSamples.from_intervals(
            rays,
            pad(edges[:, :-1].flatten(), (0, padding), value=1.0),
            pad(edges[:, 1:].flatten(), (0, padding), value=3.0),
            ray_index=pad(index, (0, padding)),
            offsets=torch.arange(0, len(index) + 1, count, dtype=torch.int32),
        )
        tau = pad(tau.flatten(), (0, padding), value=5.0)
    color = torch.rand(*tau.shape, 3, generator=g)
    return MediumRendering(samples, FieldSample(tau, color), color, tau), error


def by_numpy(parts: list[tuple[MediumRendering, Tensor]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight, error, count = np.zeros((N, N, N)), np.zeros((N, N, N)), np.zeros((N, N, N), dtype=int)
    for part, errors in parts:
        tau = part.tau.numpy().astype(np.float64)
        through = np.exp(-(np.cumsum(tau, 1) - tau))
        for ray, sample in np.ndindex(*tau.shape):
            w = through[ray, sample] * -np.expm1(-tau[ray, sample])
            x = part.samples.positions[ray, sample].numpy().astype(np.float64)
            if (abs(x) <= 1).all():
                cell = tuple(np.minimum(((x + 1) / 2 * N).astype(int), N - 1))
                weight[cell] = max(weight[cell], w)
                error[cell] += w * float(errors[ray])
                count[cell] += 1
    return weight, error, count


@pytest.mark.parametrize("padding", [None, 0, 50])
def test_sums_are_those_of_numpy(padding: int | None) -> None:
    feedback, expected = Feedback(N), by_numpy([rendered(seed) for seed in range(3)])
    for seed in range(3):
        part, error = rendered(seed, packed=padding is not None, padding=padding or 0)
        feedback.observe(part, error, counts=torch.tensor(True))
    seen = feedback.read()
    for found, wanted in zip((seen.weight, seen.error, seen.count), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-6)
    assert 100 < seen.count.sum() < 900  # some are outside
    assert torch.equal(feedback.read().error, seen.error)  # reading adds nothing
    feedback.reset()
    assert not any(buffer.any() for name, buffer in feedback.named_buffers() if name != "box")


def test_a_box_and_weights_alone() -> None:
    """Cells of a box are those of the cube, moved; one that does not listen takes nothing in."""
    part, error = rendered(0)
    whole, own = Feedback(2 * N), Feedback(2 * N, sums=False)
    for feedback in (whole, own):
        feedback.listening = feedback is whole
        feedback.observe(part, error, counts=torch.tensor(True))
    assert not own.weights().any()
    own.listening = True
    own.watch(N, torch.tensor([-1.0, 0, -1, 0, 1, 0]))
    own.observe(part, error, counts=torch.tensor(True))
    assert own.weights().any() and torch.equal(own.weights(), whole.weights()[:N, N:, :N])
    assert own.count.numel() == 0


def test_steps_that_do_not_count_are_left_out() -> None:
    feedback, (part, error) = Feedback(N), rendered(0)
    feedback.observe(part, error, counts=torch.tensor(False))
    assert not feedback.read().count.any()
    error[3] = torch.nan
    feedback.observe(part, error, counts=torch.tensor(True))
    finite = replace(part, tau=part.tau.clone())
    kept = Feedback(N)
    kept.observe(finite, error.nan_to_num(), counts=torch.tensor(True))
    assert torch.equal(feedback.read().error, kept.read().error)
    assert 0 < kept.read().count.sum() - feedback.read().count.sum() <= 10


def test_cells_are_where_the_field_sees_points() -> None:
    """Contracted to half of their distance: twice as many of the samples are inside of the cube."""
    feedback, (part, error) = Feedback(N), rendered(0)
    feedback.observe(part, error, counts=torch.tensor(True), contract=lambda x: 0.5 * x)
    half = Feedback(N)
    rays = part.samples.rays
    samples = replace(part.samples, rays=replace(rays, origins=0.5 * rays.origins), t=0.5 * part.samples.t)
    half.observe(replace(part, samples=samples), error, counts=torch.tensor(True))
    assert torch.equal(feedback.read().error, half.read().error) and feedback.read().count.sum() > 150


def test_the_order_of_steps_and_checkpoints_changes_no_bit() -> None:
    one, other = Feedback(N), Feedback(N)
    for seed in range(6):
        one.observe(*rendered(seed), counts=torch.tensor(True))
    for seed in reversed(range(6)):
        other.observe(*rendered(seed), counts=torch.tensor(True))
        other.fold()
        resumed = Feedback(N)
        resumed.observe(*rendered(99), counts=torch.tensor(True))  # is gone with what is loaded
        resumed.load_state_dict(copy.deepcopy(other.state_dict()))
        other = resumed
    for a, b in zip(vars(one.read()).values(), vars(other.read()).values(), strict=True):
        assert torch.equal(a, b)
    assert set(one.state_dict()) == {"weight", "error", "count"}


RANK = """
import json, torch
from engine.experiment import read_config
from models.feedback import Feedback, asking
from models.model import Model
from tests.models.test_feedback import N, rendered
from utils import distributed
ranks = distributed.setup("cpu")
feedback = Feedback(N)
for seed in (ranks.rank, ranks.rank + 2):
    feedback.observe(*rendered(seed), counts=torch.tensor(True))
    feedback.fold()
seen = feedback.read()
print(json.dumps([x.flatten().tolist() for x in (seen.weight, seen.error, seen.count)]))
distributed.barrier()
distributed.cleanup()
"""


def test_two_ranks_know_what_one_would() -> None:
    alone = Feedback(N)
    for seed in range(4):
        alone.observe(*rendered(seed), counts=torch.tensor(True))
    seen = alone.read()
    expected: list[Any] = [x.flatten().tolist() for x in (seen.weight, seen.error, seen.count)]
    assert said_by_two_ranks(RANK) == [expected, expected]


def test_behind_the_foreground_nothing_is_observed() -> None:
    """A part there that asks is refused in one line."""
    blocks = "{type: octree_blocks, blocks: 8, first: 1, deepest: 1, corners: 2, network: {layers: 1, width: 4}}"
    config = read_config(ROOT / "configs/nerfpp.yaml", [f"model.background.appearance.encoding={blocks}"])
    with pytest.raises(InputError, match="model.background: .* expected it there"):
        asking(Model(config.model))
