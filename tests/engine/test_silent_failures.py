"""What would be trained on nothing, without a word, is an error instead."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dataio.cameras import Rays
from engine.step_guard import check_optimized
from models.kernels.rays.packed import crossings, points, preceding
from models.kernels.rays.trace import trace
from models.samples import PackedSamples
from tests.engine.test_training import SPHERE, quick_hulls, trained

__all__ = ["quick_hulls"]


@pytest.mark.parametrize("config", ["neus_hash", "nerf_hash_open"])
def test_a_parameter_that_was_replaced_stops_the_run(tmp_path: Path, config: str) -> None:
    run = trained(tmp_path, 2, SPHERE if config == "neus_hash" else "train.steps=2", config=config)
    encoding: Any = run.objective.model.foreground.field.encoding
    name = next(name for name, _ in encoding.named_parameters(recurse=False))
    setattr(encoding, name, torch.nn.Parameter(getattr(encoding, name).detach().clone()))
    with pytest.raises(RuntimeError, match=rf"model\.foreground\.field\.encoding\.{name}: .* no place in the opt"):
        run.step_once()
    run.close()


def test_parameters_without_a_gradient_need_no_optimizer() -> None:
    kept, frozen = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer = torch.optim.SGD([kept], lr=1.0)
    kept.grad = torch.ones(3)
    check_optimized([("kept", kept), ("frozen", frozen)], optimizer)
    frozen.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="^frozen: a gradient"):
        check_optimized([("kept", kept), ("frozen", frozen)], optimizer)


def some_rays(**wanted: bool) -> Rays:
    torch.manual_seed(0)
    origins = torch.tensor([[0.0, 0.0, -3.0]]).repeat(5, 1) + 0.1 * torch.randn(5, 3)
    directions = torch.nn.functional.normalize(-origins, dim=-1)
    found = {"origins": origins, "directions": directions}
    for name in wanted:
        found[name].requires_grad_()
    return Rays(**found, near=torch.zeros(5), far=torch.full((5,), torch.inf), camera=torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("name", ["origins", "directions"])
def test_rays_that_want_a_gradient_are_refused_where_there_is_none(name: str) -> None:
    rays = some_rays(**{name: True})
    index, values = torch.arange(5, dtype=torch.int32), torch.ones(4, 4, 4)
    packed = PackedSamples.from_intervals(
        rays, torch.ones(5), 2 * torch.ones(5), ray_index=index, offsets=torch.arange(6, dtype=torch.int32)
    )
    calls = (
        lambda: points(rays.origins, rays.directions, index, torch.ones(5)),
        lambda: packed.positions_at(index.long()),
        lambda: trace(
            rays.origins, rays.directions, near=rays.near, far=rays.far, values=values, trust=1.0, least=0.1
        ),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="has no gradient, and an input requires one"):
            call()
        with torch.no_grad():
            call()


def test_other_inputs_that_want_a_gradient_are_refused_too() -> None:
    index = torch.zeros(4, dtype=torch.int32)
    t = torch.arange(4.0, requires_grad=True)
    with pytest.raises(RuntimeError, match="kernel preceding has no gradient"):
        preceding(t, index)
    with pytest.raises(RuntimeError, match="kernel crossings has no gradient"):
        crossings(t, t.detach(), index, index.long(), t.detach(), t.detach() + 1, steep=0.1)
