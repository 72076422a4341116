"""Meshes culled by masks: a ball whose masks are known in closed form, and balls beside it that are in none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from engine.meshes.finishing import as_seen, looked_at
from engine.meshes.masks import Masks, grown, mask_at, masks_of
from engine.meshes.streamed import Wanted, write_streamed
from models.rendering.visible import who_sees
from tests.engine.meshes.test_views import run_with
from utils.errors import InputError
from utils.meshing.mesh import read_mesh

RADIUS, SMALL = 0.4, 0.08
ABOVE, BESIDE = np.array([0.0, 0.0, 0.75]), np.array([0.9, 0.0, 0.0])
CELL = 0.03


def a_run(views: int = 10) -> Any:
    """Cameras in a circle about a ball that alone is in their masks; solid are it and a smaller one above it."""
    turn = np.linspace(0, 2 * np.pi, views, endpoint=False)
    run = run_with(3.0 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1))
    balls = ((torch.zeros(3), RADIUS), (torch.from_numpy(ABOVE).float(), SMALL))
    run.surface_value = lambda x: torch.stack([(x - center).norm(dim=-1) - radius for center, radius in balls]).amin(0)
    run.config = SimpleNamespace(data=SimpleNamespace(path="data/ball"))
    run.load_scene = lambda: SimpleNamespace(masks=[mask_of(run, view) for view in range(views)])
    return run


def mask_of(run: Any, view: int) -> np.ndarray:
    """255 where the ray through the middle of a pixel passes the origin no farther than the ball reaches."""
    rays = run.cameras.rays(torch.full((6400,), view), run.cameras.pixel_grid(view))
    away = torch.linalg.cross(rays.origins, torch.nn.functional.normalize(rays.directions, dim=-1)).norm(dim=-1)
    return np.asarray((255 * (away <= RADIUS)).numpy().astype(np.uint8)).reshape(80, 80)


def balls(*centers: np.ndarray) -> tuple[trimesh.Trimesh, list[np.ndarray]]:
    """The ball and small ones about these centers; and the vertices of each."""
    parts = [trimesh.creation.icosphere(4, RADIUS)]
    parts += [trimesh.creation.icosphere(3, SMALL).apply_translation(center) for center in centers]
    ends = np.cumsum([0, *(len(part.vertices) for part in parts)])
    mesh = trimesh.util.concatenate(parts)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh, [np.arange(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]


def test_a_disk_is_grown_by_pixels() -> None:
    mask = np.zeros((7, 9), np.uint8)
    mask[3, 4], mask[0, 0] = 255, 127
    found = grown(mask, 2)
    assert found.sum() == 13 and found[3, 2] and found[2, 3] and not found[1, 3] and not found[0, 0]
    assert grown(mask, 0).sum() == 1


def test_a_mask_is_asked_at_the_pixel_that_holds_a_point() -> None:
    mask = np.array([[True, False, False], [False, False, True]])
    pixel = np.array([[0.9, 0.9], [2.0, 1.0], [1.99, 1.0], [3.0, 1.0], [-0.1, 0.0], [0.5, 0.5], [np.nan, 0.0]])
    held, inside = mask_at(mask, pixel, np.array([1, 1, 1, 1, 1, -1.0, 1]))
    assert held.tolist() == [True, True, True, False, False, False, False]
    assert inside.tolist() == [True, True, False, False, False, False, False]


def test_what_no_mask_shows_goes_with_its_unseen_back() -> None:
    """The ball above is outside of all ten masks; of the unseen poles of the large one all masks hold what is there."""
    mesh, (ball, above) = balls(ABOVE)
    run = a_run()
    _, within = looked_at(run, mesh, CELL, masks_of(run, 1))
    assert within is not None
    assert within[ball].all() and not within[above].any()


def test_a_view_that_has_a_thing_before_the_object_keeps_it() -> None:
    """From +x the ball beside stands before the large one: for one in three of who sees its front, and for nobody of
    who sees its back.
    """
    mesh, (_, beside) = balls(BESIDE)
    run = a_run(8)
    _, within = looked_at(run, mesh, CELL, masks_of(run, 0))
    assert within is not None
    away = (mesh.vertices[beside] - BESIDE) / SMALL
    assert within[beside][away[:, 0] > 0.95].all() and not within[beside][away[:, 0] < -0.2].any()


@pytest.mark.parametrize("dilation, kept", [(4, False), (11, True)])
def test_masks_are_grown(dilation: int, kept: bool) -> None:
    """The ball above is seen 0.75 / 3 * 60 = 15 pixels from the middle, its ends 13 and 17; the mask ends at 8."""
    mesh, (_, above) = balls(ABOVE)
    run = a_run()
    _, within = looked_at(run, mesh, CELL, masks_of(run, dilation))
    assert within is not None
    assert within[above].all() == kept and within[above].any() == kept


def test_a_mesh_in_memory_is_culled() -> None:
    run, (mesh, _) = a_run(), balls(ABOVE)
    masks = masks_of(run, 2)
    found = as_seen(run, mesh, cell=CELL, color=False, close=False, masks=masks)
    assert found.mesh.body_count == 1 and found.mesh.bounds[1, 2] == pytest.approx(RADIUS)
    assert "of the faces kept" in found.said
    assert len(as_seen(run, mesh, cell=CELL, color=False, close=False).mesh.faces) == len(mesh.faces)


def test_rays_are_cast_once_for_views_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    run, (mesh, _) = a_run(), balls(ABOVE)
    asked: list[int] = []

    def counted(*given: Any, **options: Any) -> Any:
        asked.append(1)
        return who_sees(*given, **options)

    monkeypatch.setattr("engine.meshes.views.who_sees", counted)
    seen, within = looked_at(run, mesh, CELL, masks_of(run, 1))
    assert len(asked) == 1 and within is not None and not within.all()
    assert torch.equal(seen.count, looked_at(run, mesh, CELL)[0].count)


def test_a_mesh_written_part_by_part_is_culled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.meshes.streamed.GUIDE", 48)
    run, found = a_run(), {}
    for name, masks in (("all", None), ("culled", masks_of(a_run(), 2))):
        wanted = Wanted(96, None, "all", None, close=False, color=False, min_views=0, masks=masks)
        write_streamed(run, [tmp_path / f"{name}.ply"], wanted, np.eye(4))
        found[name] = read_mesh(tmp_path / f"{name}.ply")
    assert found["all"].body_count == 2 and found["culled"].body_count == 1
    assert found["culled"].area == pytest.approx(4 * np.pi * RADIUS**2, rel=0.01)


def test_what_cannot_be_culled_is_one_line() -> None:
    run, (mesh, _) = a_run(), balls()
    nothing = Masks([np.zeros((80, 80), np.uint8)] * 10, 3)
    with pytest.raises(InputError, match=r"^--masks: all of the surface lies outside"):
        as_seen(run, mesh, cell=CELL, color=False, close=False, masks=nothing)
    run.load_scene = lambda: SimpleNamespace(masks=None)
    with pytest.raises(InputError, match=r"^--masks: data/ball - the run reads no masks of its data - expected"):
        masks_of(run, 3)
