"""Lines, planes and voxels that grow, the field made of them, and what losses ask of their numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dataio.formats.procedural import ProceduralData
from engine.experiment import read_config
from models.encodings.factors import FactorConfig, FactorEncoding, resized
from models.encodings.tensor_cp import TensorCpConfig
from models.encodings.tensor_vm import TensorVmConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.fields.voxels import EMPTY, Voxels, VoxelsConfig, cells_of
from models.inits.hull import HullInit
from models.losses.base import Step
from models.losses.tables import TableL1Loss, TableVariationLoss
from models.model import Model
from models.optimizers.adam import Adam
from models.samples import Points
from tests.models.losses.test_losses import batch, rendering
from tests.support.analytic import rays_at_sphere
from tests.support.sources import ROOT
from utils.errors import InputError
from utils.meshing.cells import cell_centers

KINDS: dict[str, type[FactorConfig]] = {"vm": TensorVmConfig, "cp": TensorCpConfig, "voxels": VoxelGridConfig}


def made(kind: str, **keys: Any) -> FactorEncoding:
    settings: dict[str, Any] = {"cells": 16, "components": 4, "grow": (0.2, 0.4), "initial": 1.0, **keys}
    torch.manual_seed(0)
    return KINDS[kind](**settings).build()


def points(count: int = 500, spread: float = 2.2) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * spread


def test_numbers_at_new_corners_lie_on_the_lines_between_old_ones() -> None:
    """Also by a factor that is no whole number: a plane that is linear on both axes stays what it is."""
    x, y = torch.meshgrid(torch.linspace(0, 1, 4), torch.linspace(0, 1, 6), indexing="ij")
    fine_x, fine_y = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 1, 8), indexing="ij")
    fine = resized((2 * x - y + x * y)[..., None], [5, 8])
    torch.testing.assert_close(fine[..., 0], 2 * fine_x - fine_y + fine_x * fine_y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_features_stay_what_they_are(kind: str) -> None:
    encoding, x = made(kind), points()
    encoding.cover(torch.tensor([-0.9, -1.0, -0.7]), torch.tensor([0.8, 0.9, 1.0]))
    place, rows = encoding.table.data_ptr(), len(encoding.table)
    for progress, size in (0.1, None), (0.2, 8), (0.3, None), (0.5, 16), (0.9, None):
        before = encoding(x)
        assert encoding.refresh(progress) is (size is not None)
        torch.testing.assert_close(encoding(x), before, atol=1e-5, rtol=0)
        assert size is None or encoding.latest_change() == f"grew to {size} x {size} x {size}"
    assert (encoding.generation, encoding.table.data_ptr(), len(encoding.table)) == (2, place, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_features_are_those_of_the_whole(kind: str) -> None:
    encoding, x = made(kind), points()
    whole = encoding(x.view(4, 125, 3))
    assert torch.equal(whole[..., :3], x.view(4, 125, 3)) and encoding.keeps_input
    assert torch.equal(encoding.features(x.view(4, 125, 3)), whole[..., 3:])
    torch.testing.assert_close(encoding.total(x), whole[..., 3:].sum(-1).view(-1), atol=1e-5, rtol=1e-5)


def test_several_growths_at_once_and_by_other_factors() -> None:
    encoding = made("vm", cells=23, growth=1.5)
    assert encoding.sides == [(10,) * 3, (15,) * 3, (23,) * 3]
    corners = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [-1, 1, -1]])
    before = encoding(corners)
    assert encoding.refresh(0.7) and not encoding.refresh(0.7) and encoding.generation == 2
    torch.testing.assert_close(encoding(corners), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_in_use_get_no_gradient(kind: str) -> None:
    encoding = made(kind)
    used = torch.zeros(len(encoding.table), dtype=torch.bool)
    for view in encoding.grids(used[:, None]):
        view.fill_(True)
    encoding(points()).sin().sum().backward()
    grad = encoding.table.grad
    assert grad is not None and (grad[~used] == 0).all() and 0 < used.float().mean() < 0.4
    assert (grad[used] != 0).any(-1).float().mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_lazy_adam_leaves_rows_without_gradient_bit_identical(kind: str) -> None:
    encoding = made(kind, grow=())
    before = encoding.table.detach().clone()
    optimizer = Adam([encoding.table], lr=0.1, lazy=True)
    near = points(20, spread=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        encoding(near).sin().sum().backward()
        optimizer.step()
    grad = encoding.table.grad
    assert grad is not None and torch.equal(encoding.table[grad == 0], before[grad == 0])
    assert (encoding.table[grad != 0] != before[grad != 0]).all() and (grad != 0).any()


def test_the_layout_is_that_of_the_state() -> None:
    encoding, x = made("vm"), points()
    encoding.cover(-0.5 * torch.ones(3), 0.7 * torch.ones(3))
    encoding.refresh(0.3)
    other = made("vm")
    other.load_state_dict(encoding.state_dict())
    assert other.generation == 1 and torch.equal(other(x), encoding(x))
    assert other.refresh(0.5) and encoding.refresh(0.5) and torch.equal(other(x), encoding(x))
    for key, value in ("resolution", torch.tensor([5, 5, 5])), ("box", torch.tensor([1.0, 0, 0, 0, 1, 1])):
        with pytest.raises(ValueError, match="expected"):
            other.load_state_dict(encoding.state_dict() | {key: value})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"grow": (0.4, 0.2)}, "should ascend between 0 and 1"),
        ({"grow": (0.1, 0.2, 0.3, 0.4)}, "grows from 1 cells; expected at least 2"),
        ({"cells": 1024, "components": 64}, "numbers; expected at most"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made("voxels", **keys)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pixel_changes(kind: str) -> None:
    """Of a model with a table of large numbers: colors, opacities and depths stay."""
    keys = {"cells": 32, "components": 4, "grow": (0.2, 0.4), "initial": 1.0}
    field = VoxelsConfig(density=KINDS[kind](**keys), colors=KINDS[kind](**keys), features=5, initial_value=-1.0)
    config = read_config(ROOT / "configs/tensorf_vm.yaml", ["model.foreground.opacity.scale=2"]).model
    foreground = config.foreground.model_copy(update={"field": field})
    torch.manual_seed(0)
    model = Model(config.model_copy(update={"foreground": foreground})).eval()
    rays = rays_at_sphere(200, spread=0.5)
    with torch.no_grad():
        before = model(rays)
        for progress in (0.25, 0.5):
            changes = model.refresh(1, progress)
            assert [change.name for change in changes] == ["foreground.field.density", "foreground.field.colors"]
            after = model(rays)
            assert before.color.std() > 1e-3 and before.opacity.std() > 1e-3
            torch.testing.assert_close(after.color, before.color, atol=1e-5, rtol=0)
            torch.testing.assert_close(after.opacity, before.opacity, atol=1e-5, rtol=0)


def field_of(kind: str) -> Voxels:
    own = KINDS[kind](cells=8, components=4, initial=0.5)
    torch.manual_seed(0)
    return VoxelsConfig(density=own, colors=own, initial_value=-2.0).build()


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_the_sum_and_the_color_a_combination(kind: str) -> None:
    field, x = field_of(kind), points(50, 1.8)
    found = field(Points(x, x))
    torch.testing.assert_close(found.value, field.density(x)[:, 3:].sum(-1) - 2, atol=1e-6, rtol=1e-6)
    assert torch.equal(found.features, field.colors(x)[:, 3:]) and field.features == found.features.shape[1]


def test_free_space_is_what_lies_off_the_hull() -> None:
    """Of the photographs of the made-up object, with their masks; without masks nothing is known."""
    scene = ProceduralData(size=32, views=4).load()
    field, x = field_of("vm"), cell_centers(64)
    field.initialize(scene)
    hull = HullInit().distance(scene)
    assert hull is not None
    distance, empty = hull(x), field.value(x) == EMPTY
    assert not empty[distance < 0].any() and empty[distance > 0.06].all() and 0.3 < empty.float().mean() < 0.99
    density: Any = field.density
    low, high = density.box.chunk(2)
    assert ((x[~empty] > low) & (x[~empty] < high)).all() and (high - low < 2).any()
    unknown = field_of("vm")
    unknown.initialize(replace(scene, masks=None))
    density = unknown.density
    assert unknown.solid.all() and density.box.tolist() == [-1, -1, -1, 1, 1, 1]


def test_cells_of_a_lattice_are_its_own_and_the_nearest_beyond() -> None:
    assert torch.equal(cells_of(cell_centers(64)), torch.arange(64**3))
    assert cells_of(torch.tensor([[-2.0, -1.0, -1.0], [1.5, 1.0, 9.0]])).tolist() == [0, 64**3 - 1]


def model_of(kind: str) -> Model:
    config = read_config(ROOT / "configs/tensorf_vm.yaml").model
    own = KINDS[kind](cells=6, components=2, grow=(0.5,), initial=1.0)
    field = VoxelsConfig(density=own, colors=own)
    foreground = config.foreground.model_copy(update={"field": field})
    return Model(config.model_copy(update={"foreground": foreground}))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_on_tables_and_their_gradients(kind: str) -> None:
    model = model_of(kind)
    density: Any = model.foreground.field.density
    table = density.table
    for loss in (TableL1Loss(), TableVariationLoss()):
        leaf = table.detach().double().requires_grad_()
        grids = density.grids(leaf)
        if isinstance(loss, TableL1Loss):
            truth = sum(grid.abs().mean() for grid in grids)
        else:
            truth = sum(grid.diff(dim=axis).square().mean() for grid in grids for axis in range(grid.dim() - 1))
        found = loss(Step(rendering(2), batch(2), model))
        assert found.item() == pytest.approx(truth.item(), rel=1e-5)
        mine, theirs = torch.autograd.grad(3 * found, table)[0], torch.autograd.grad(3 * truth, leaf)[0]
        torch.testing.assert_close(mine.double(), theirs, atol=1e-6, rtol=1e-5)


def test_a_line_of_known_numbers() -> None:
    """0, 1, 3 on each of three lines: mean 4/3; squares of the differences 1 and 4."""
    model = model_of("cp")
    encoding = copy.deepcopy(model.foreground.field.density)
    assert isinstance(encoding, FactorEncoding)
    with torch.no_grad():
        for grid in encoding.grids(encoding.table):
            grid.copy_(torch.tensor([0.0, 1.0, 3.0, 3.0])[:, None])
    model.foreground.field.density = encoding
    step = Step(rendering(0), batch(0), model)
    assert TableL1Loss()(step).item() == pytest.approx(3 * 7 / 4)
    assert TableVariationLoss()(step).item() == pytest.approx(3 * 5 / 3)


def test_a_name_that_is_not_there() -> None:
    step = Step(rendering(2), batch(2), model_of("vm"))
    with pytest.raises(InputError, match="of: encoding - no encoding with tables - expected one of density, colors"):
        TableL1Loss(of="encoding")(step)
