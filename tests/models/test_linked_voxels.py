"""Voxels with rows for some corners: against a grid of which the others are zero; growth, pruning, what is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.encodings.factors import FactorEncoding
from models.encodings.linked_voxels import LinkedVoxels, LinkedVoxelsConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.fields.pruning import PruneConfig, Pruning, at_corners
from models.fields.voxels import VoxelsConfig
from models.kernels.encodings.factors import factor_features_with_vjp
from models.kernels.encodings.variation import Stretch, voxel_variation
from models.losses.base import Step
from models.losses.tables import TableL1Loss, VoxelVariationLoss
from models.samples import DenseSamples, FieldSample, MediumRendering
from tests.models.kernels.encodings.test_factors import reference
from tests.models.losses.test_losses import batch, rendering
from tests.models.test_tables import model_of, points
from tests.support.analytic import rays_at_sphere
from tests.support.second_order import check_pullback
from utils.errors import InputError

KEYS: dict[str, Any] = {"cells": 8, "components": 4, "grow": (0.2, 0.4), "initial": 1.0}


def linked(**keys: Any) -> LinkedVoxels:
    torch.manual_seed(0)
    return LinkedVoxelsConfig(**KEYS | keys).build()


def some_corners(encoding: LinkedVoxels, share: float = 0.5) -> Tensor:
    return torch.rand(3 * (encoding.cells + 1,), generator=torch.Generator().manual_seed(3)) < share


def twin(encoding: LinkedVoxels) -> tuple[FactorEncoding, Tensor]:
    """A grid with all rows, of the same numbers and zeros elsewhere; which of its rows are real."""
    dense = VoxelGridConfig(cells=encoding.cells, components=encoding.width - 3).build()
    present = encoding.present().flatten()
    with torch.no_grad():
        dense.table.zero_()
        dense.table[present] = encoding.table[: int(present.sum()), : encoding.width - 3]
    dense.cover(*encoding.box.chunk(2))
    return dense, present


@pytest.mark.parametrize("components", [1, 4, 27])
def test_corners_without_a_row_are_zeros_without_gradient(components: int) -> None:
    encoding, x = linked(grow=(), components=components), points()
    encoding.cover(torch.tensor([-0.9, -1.0, -0.7]), torch.tensor([0.8, 0.9, 1.0]))
    encoding.keep(some_corners(encoding))
    dense, present = twin(encoding)
    for mine, truth in (
        (encoding(x), dense(x)),
        (encoding.features(x), dense.features(x)),
        (encoding.total(x), dense.total(x)),
    ):
        torch.testing.assert_close(mine, truth, atol=1e-6, rtol=1e-6)
        got, wanted = (torch.autograd.grad(y.sin().sum(), e.table)[0] for y, e in ((mine, encoding), (truth, dense)))
        kept = int(present.sum())
        torch.testing.assert_close(got[:kept, :components], wanted[present], atol=1e-5, rtol=1e-5)
        assert (got[kept:] == 0).all()


@pytest.mark.parametrize("width", [1, 4, 16])
def test_the_pullback_and_its_gradients(width: int, device: torch.device) -> None:
    """In float64, of a grid of which the missing rows are zeros."""
    encoding = linked(grow=(), components=width)
    encoding.keep(some_corners(encoding))
    present, kept = encoding.present().flatten(), int(encoding.present().sum())
    whole, mine = twin(encoding)[0].factors(), encoding.to(device).factors()

    def expanded(rows: Tensor) -> Tensor:
        return rows.new_zeros(len(present), width).index_put((present.nonzero()[:, 0],), rows)

    check_pullback(
        lambda p, t: factor_features_with_vjp(p, t, mine, lead=3),
        lambda p, t: reference(p, expanded(t), whole, 3),
        points(200),
        encoding.table.detach()[:kept].cpu(),
        device,
    )


def test_growth_changes_nothing() -> None:
    """Neither of all corners, nor of some, by a factor of two; and the rows are those of the final size."""
    for share in (1.0, 0.3):
        encoding, x = linked(), points(2000)
        encoding.cover(torch.tensor([-0.9, -1.0, -0.7]), torch.tensor([0.8, 0.9, 1.0]))
        encoding.keep(some_corners(encoding, share))
        place, rows = encoding.table.data_ptr(), len(encoding.table)
        for progress, cells in ((0.1, 2), (0.2, 4), (0.3, 4), (0.5, 8)):
            before, cells_before = encoding(x), encoding.cells
            assert encoding.refresh(progress) is (cells != cells_before) and encoding.cells == cells
            torch.testing.assert_close(encoding(x), before, atol=1e-5, rtol=0)
        assert (encoding.table.data_ptr(), len(encoding.table)) == (place, rows)
        count = int(encoding.present().sum())
        assert encoding.latest_change() == f"grew to 8 cells: {count} rows, {count / 729:.1%} of the box"


def test_the_most_seen_stay_where_not_all_can() -> None:
    encoding = linked(cells=8, grow=(0.5,), rows=200, components=1)
    seen = torch.zeros(5, 5, 5)
    seen[:3], seen[0] = 0.1, 0.9
    encoding.prune(seen, 0.05)
    assert encoding.present().sum() == 75 and encoding.refresh(0.5)
    present = encoding.present()
    assert present.sum() == 200 and present[:2].all() and not present[5:].any()  # the 162 next to the most seen
    assert encoding.latest_change().startswith("pruned and grew to 8 cells: 200 rows, 27.4% of the box; 286 more than")


def test_the_rows_are_those_of_the_state() -> None:
    encoding, x = linked(), points()
    encoding.keep(some_corners(encoding))
    encoding.refresh(0.3)
    other = linked()
    assert "links" not in encoding.state_dict()
    other.load_state_dict(encoding.state_dict())
    assert torch.equal(other.links, encoding.links) and torch.equal(other(x), encoding(x))
    assert other.refresh(0.5) and encoding.refresh(0.5) and torch.equal(other(x), encoding(x))
    few = linked(rows=27)
    wrong = few.state_dict() | {"bits": torch.full_like(few.bits, -1), "resolution": torch.tensor([4, 4, 4])}
    with pytest.raises(ValueError, match="125 corners with rows - expected at most 27"):
        few.load_state_dict(wrong)


@pytest.mark.parametrize("components", [1, 27])
@pytest.mark.parametrize("first", [0, 600])
def test_total_variation_and_its_gradient(components: int, first: int, device: torch.device) -> None:
    """Against differences of the whole grid in float64; from 600 on the corners go on at the first one."""
    encoding = linked(grow=(), components=components)
    encoding.keep(some_corners(encoding))
    present, scale, count = encoding.present(), torch.tensor([0.5, 1.0, 2.0]), 400
    dense = torch.zeros(*present.shape, components, dtype=torch.float64)
    dense[present] = encoding.table.detach()[: int(present.sum()), :components].double()
    dense.requires_grad_()
    changes = [pad(dense.diff(dim=axis) * scale[2 - axis], axis) for axis in range(3)]
    each = (torch.stack(changes).square().sum(0) + 1e-9).sqrt().sum(-1)
    corners = (first + torch.arange(count)) % present.numel()
    truth = each.flatten()[corners].mean()
    encoding = encoding.to(device)
    stretch = Stretch(torch.tensor([first], dtype=torch.int32, device=device), count, 729, scale.to(device))
    found = voxel_variation(encoding.table, encoding.factors(), stretch)
    assert found.item() == pytest.approx(truth.item(), rel=1e-3)  # the roots of 1e-9 of what is zero
    mine = torch.autograd.grad(3 * found, encoding.table)[0].cpu()
    wanted = torch.autograd.grad(3 * truth, dense)[0][present]
    torch.testing.assert_close(mine[: len(wanted), :components].double(), wanted, atol=1e-6, rtol=1e-5)
    assert (mine[len(wanted) :] == 0).all() and (mine[:, components:] == 0).all()


def test_the_loss_is_per_length_and_on_some_corners() -> None:
    """Of x over a box of half the cube's side in 4 cells: steps of a quarter, a 32nd over a cell of 256 across."""
    model = model_of("voxels")
    field = VoxelsConfig(density=VoxelGridConfig(cells=4), colors=LinkedVoxelsConfig(**KEYS)).build()
    model.foreground.field = field
    assert isinstance(field.density, FactorEncoding) and isinstance(field.colors, LinkedVoxels)
    field.density.cover(torch.full((3,), -0.5), torch.full((3,), 0.5))
    with torch.no_grad():
        field.density.grids(field.density.table)[0][..., 0] = torch.linspace(-0.5, 0.5, 5)
    step = Step(rendering(2), batch(2), model)
    whole = VoxelVariationLoss(share=1.0)(step)
    assert whole.item() == pytest.approx(100 / 125 / 128, rel=1e-2)
    whole.backward()
    found = [VoxelVariationLoss(share=0.2)(step).item() for _ in range(20)]
    assert len(set(found)) > 1 and sum(found) / 20 == pytest.approx(whole.item(), rel=0.1)
    assert VoxelVariationLoss(of="colors")(step) > 0
    with pytest.raises(InputError, match="of: colors - no encoding with tables - expected one of density"):
        TableL1Loss(of="colors")(step)


def pad(change: Tensor, axis: int) -> Tensor:
    """Zeros behind the last of [n, n, n, F] on an axis."""
    behind = torch.zeros_like(change.narrow(axis, 0, 1))
    return torch.cat([change, behind], axis)


def test_a_plane_varies_by_its_slope() -> None:
    """Of x / 2 over the cube in four cells: each step is a quarter, the last corner of each line has none."""
    dense = VoxelGridConfig(cells=4, components=1).build()
    with torch.no_grad():
        dense.grids(dense.table)[0][..., 0] = torch.linspace(-0.5, 0.5, 5)
    stretch = Stretch(torch.zeros(1, dtype=torch.int32), 125, 125, torch.ones(3))
    assert voxel_variation(dense.table, dense.factors(), stretch).item() == pytest.approx(0.25 * 100 / 125, rel=1e-3)


def test_the_weight_of_a_corner_is_the_largest_about_it() -> None:
    weights = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0))
    for dilate in (0, 1):
        found = at_corners(weights, dilate)
        for i, j, k in torch.cartesian_prod(*3 * [torch.arange(5)]).tolist():
            low, high = (max(0, place - 1 - dilate) for place in (i, j, k)), (i, j, k)
            box = [slice(a, b + 1 + dilate) for a, b in zip(low, high, strict=True)]
            assert found[i, j, k] == weights[tuple(box)].max()


def seen_at(place: float) -> MediumRendering:
    """A ray through the middle of the cube with one opaque interval, so far behind the middle."""
    rays = rays_at_sphere(1, spread=0.0, distance=2.5)
    samples = DenseSamples.from_edges(rays, torch.tensor([[2.49 + place, 2.51 + place]]))
    tau = torch.full((1, 1), 20.0)
    return MediumRendering(samples, FieldSample(tau, tau), torch.ones(1, 1, 3), tau)


def test_what_rays_saw_in_the_window_stays() -> None:
    encoding = linked(grow=(), components=1)
    pruning = Pruning(PruneConfig(at=(0.5,), window=0.1, dilate=0), 8)
    early, late = seen_at(-0.6), seen_at(0.6)
    pruning.refresh(0.3, [encoding])
    pruning.feedback.observe(early, torch.zeros(1), counts=torch.tensor(True))  # before the window
    pruning.refresh(0.45, [encoding])
    pruning.feedback.observe(late, torch.zeros(1), counts=torch.tensor(True))
    assert not encoding.refresh(0.45) and encoding.present().all()
    pruning.refresh(0.5, [encoding])
    assert encoding.refresh(0.5) and encoding.latest_change().startswith("pruned to 8 cells: 8 rows")
    x, y, z = ((late.samples.positions[0, 0] + 1) * 4).long().tolist()
    assert encoding.present()[z : z + 2, y : y + 2, x : x + 2].all()
    assert not pruning.feedback.listening and not pruning.feedback.weight.any()
    pruning.refresh(0.9, [encoding])
    assert not encoding.refresh(0.9)


def test_a_growth_in_the_step_in_which_a_window_begins() -> None:
    """The field is asked before its encodings: what was observed of the old cells in that step does not count."""
    encoding = linked(grow=(0.3,), components=1)
    pruning = Pruning(PruneConfig(at=(0.5,), window=0.1), 8)
    pruning.refresh(0.45, [encoding])
    assert encoding.refresh(0.45) and pruning.feedback.resolution == 4 and encoding.cells == 8
    pruning.feedback.observe(seen_at(0.0), torch.zeros(1), counts=torch.tensor(True))
    again = Pruning(PruneConfig(at=(0.5,), window=0.1), 8)
    pruning.feedback.fold()
    again.load_state_dict(pruning.state_dict())
    again.resume([encoding])
    for each in (pruning, again):
        each.refresh(0.47, [encoding])
        assert each.feedback.resolution == 8 and each.feedback.listening and not each.feedback.weights().any()
    again.load_state_dict(pruning.state_dict() | {"events": torch.tensor(9)})
    with pytest.raises(ValueError, match="pruning after 9 events, 8 cells - expected at most 2 events and 8 cells"):
        again.resume([encoding])


def test_nothing_is_dropped_where_nothing_was_observed() -> None:
    encoding = linked(grow=(), components=1)
    pruning = Pruning(PruneConfig(at=(0.5,)), 8)
    pruning.refresh(1.0, [encoding])
    assert not encoding.refresh(1.0) and encoding.present().all()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rows": 20}, "rows: 20 for the 27 corners at first; expected at least as many"),
        ({"grow": (0.4, 0.2)}, "should ascend between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        linked(**keys)


@pytest.mark.parametrize(
    ("prune", "colors", "words"),
    [
        ({"at": [0.03]}, {}, "window: 0.05 before 0.03 begins before 0"),
        ({"at": [0.42]}, {}, "prune: grows at 0.4, while weights are observed"),
        ({"at": [0.4]}, {"cells": 16}, "prune: density and colors differ in cells, grow or growth"),
        ({"at": [0.4]}, {"type": "voxel_grid"}, "prune: drops rows of linked_voxels"),
    ],
)
def test_pruning_that_cannot_be_is_refused(prune: dict[str, Any], colors: dict[str, Any], words: str) -> None:
    own = {"type": "linked_voxels", **KEYS, "grow": [0.2, 0.4]}
    with pytest.raises(ValueError, match=words):
        VoxelsConfig.model_validate({"density": own, "colors": own | colors, "prune": prune})
