"""A grid that doubles during a run is the same function before and after, with one table of fixed size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.experiment import read_config
from models.encodings.dense_grid import DenseGrid, DenseGridConfig, doubled
from models.model import Model
from models.optimizers.adam import Adam
from tests.support.analytic import rays_at_sphere
from tests.support.sources import ROOT
from utils.config.parts import Part
from utils.config.schedule import LinearSchedule


def made(**keys: Any) -> DenseGrid:
    settings: dict[str, Any] = {"resolutions": (8, 16), "grow": (0.2, 0.4), "initial": 1.0, **keys}
    return DenseGridConfig(**settings).build()


def points() -> Tensor:
    return torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 2.2 - 1.1


def test_doubled_is_trilinear() -> None:
    grid = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    fine = doubled(grid)
    expected = torch.nn.functional.interpolate(
        grid.permute(3, 0, 1, 2)[None], size=fine.shape[:3], mode="trilinear", align_corners=True
    )
    torch.testing.assert_close(fine, expected[0].permute(1, 2, 3, 0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("features", [2, 8])
@pytest.mark.parametrize("entries", ["float32", "float16"])
def test_features_stay_what_they_are(features: int, entries: str) -> None:
    grid, x = made(features=features, entries=entries), points()
    assert grid.resolution.tolist()[:: features // 2] == [2, 4] and len(grid.table) == features // 2 * (9**3 + 17**3)
    place, close = grid.table.data_ptr(), 2e-6 if entries == "float32" else 2e-3  # the new corners are rounded too
    for progress, size in (0.1, None), (0.2, "4, 8"), (0.3, None), (0.5, "8, 16"), (0.9, None):
        before, pull = grid.with_vjp(x)
        pulled = pull(torch.ones_like(before))
        assert grid.refresh(progress) is (size is not None)
        after, pull = grid.with_vjp(x)
        torch.testing.assert_close(after, before, atol=close, rtol=0)
        inside = (((x * 0.5 + 0.5) * 16 % 1 - 0.5).abs() < 0.45).all(-1)  # at a face both slopes are right
        torch.testing.assert_close(
            pull(torch.ones_like(after))[inside], pulled[inside], atol=100 * features * close, rtol=0
        )
        if size:
            assert grid.latest_change() == f"grew to {size}"
    assert grid.generation == 2 and grid.table.data_ptr() == place and grid.resolution.tolist()[-1] == 16


def test_several_doublings_at_once() -> None:
    grid, x = made(), points()
    before = grid(x)
    assert grid.refresh(0.7) and not grid.refresh(0.7) and grid.generation == 2
    torch.testing.assert_close(grid(x), before, atol=2e-6, rtol=0)


def test_levels_that_are_off_grow_too() -> None:
    grid, x = made(active=LinearSchedule(start=0.5, end=1.0)), points()
    grid.update(0.0)
    assert grid.active == 1
    whole = copy.deepcopy(grid)
    whole.update(1.0)
    grid.refresh(0.5)
    torch.testing.assert_close(grid(x)[:, 3:5], whole(x)[:, 3:5], atol=2e-6, rtol=0)
    assert (grid(x)[:, 5:] == 0).all()
    grid.update(1.0)
    torch.testing.assert_close(grid(x), whole(x), atol=2e-6, rtol=0)


def test_rows_that_are_not_in_use_get_no_gradient_and_stay() -> None:
    grid = made()
    used = torch.zeros(len(grid.table), dtype=torch.bool)
    used[: 3**3] = used[9**3 : 9**3 + 5**3] = True
    optimizer, before = Adam([grid.table], lr=0.1), grid.table.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        grid(points()).sin().sum().backward()
        assert grid.table.grad is not None and (grid.table.grad[~used] == 0).all()
        optimizer.step()
    assert torch.equal(grid.table[~used], before[~used]) and (grid.table != before)[used].any(-1).all()


def test_the_layout_is_that_of_the_state() -> None:
    grid, x = made(), points()
    grid.refresh(0.3)
    other = made()
    other.load_state_dict(grid.state_dict())
    assert other.generation == 1 and torch.equal(other(x), grid(x))
    assert other.refresh(0.5) and grid.refresh(0.5) and torch.equal(other(x), grid(x))
    early = made()
    other.load_state_dict(early.state_dict())  # a run that goes back
    assert other.generation == 0 and other.resolution.tolist() == [2, 4]
    assert "resolution" not in made(grow=()).state_dict()  # what cannot change is no state


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"grow": (0.4, 0.2)}, "should ascend between 0 and 1"),
        ({"grow": (0.0,)}, "should ascend between 0 and 1"),
        ({"grow": (0.5, 1.0)}, "should ascend between 0 and 1"),
        ({"resolutions": (8, 18)}, r"should be multiples of 4, 2 times doubled \(got \[18\]\)"),
    ],
)
def test_what_cannot_grow_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**keys)


def test_no_pixel_changes() -> None:
    """A model with a grid of large entries and cells that are all occupied: colors, opacities and depths stay."""
    grid: Part = DenseGridConfig(resolutions=(16, 32), grow=(0.2, 0.4), initial=0.3)
    config = read_config(ROOT / "configs/nerf_hash.yaml")
    field = config.model.foreground.field.model_copy(update={"encoding": grid})
    foreground = config.model.foreground.model_copy(update={"field": field})
    torch.manual_seed(0)
    model = Model(config.model.model_copy(update={"foreground": foreground})).eval()
    encoding: Any = model.foreground.field
    with torch.no_grad():
        encoding.encoding.table *= 3
    rays = rays_at_sphere(200, spread=0.5)
    with torch.no_grad():
        before = model(rays)
        for progress in (0.25, 0.5):
            changes = model.refresh(1, progress)
            assert [change.name for change in changes] == ["foreground.field.encoding"]
            assert changes[0].parameters == [encoding.encoding.table]
            after = model(rays)
            assert before.color.std() > 1e-3
            torch.testing.assert_close(after.color, before.color, atol=1e-5, rtol=0)
            torch.testing.assert_close(after.opacity, before.opacity, atol=1e-5, rtol=0)
    assert model.refresh(1, 0.6) == []
